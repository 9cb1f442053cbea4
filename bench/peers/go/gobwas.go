package main

import (
	"bufio"
	"bytes"
	"io"
	"net"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// upgradeGobwas tells whether the request was for the path of broadcasts.
func upgradeGobwas(conn net.Conn) (broadcast bool, err error) {
	upgrader := ws.Upgrader{OnRequest: func(uri []byte) error {
		broadcast = string(uri) == broadcastPath
		return nil
	}}
	_, err = upgrader.Upgrade(conn)
	return broadcast, err
}

// Broadcasts are compiled to the bytes of a frame once, in both configurations.
func relayGobwas(all *hub[net.Conn], op ws.OpCode, payload []byte) error {
	frame, err := ws.CompileFrame(ws.NewFrame(op, true, payload))
	if err == nil {
		all.each(func(member net.Conn) { member.Write(frame) })
	}
	return err
}

// The high-level functions, as in the library's first example.
func serveGobwasWsutil(listener net.Listener) error {
	var all hub[net.Conn]
	return acceptEach(listener, func(conn net.Conn) {
		defer conn.Close()
		broadcast, err := upgradeGobwas(conn)
		if err != nil {
			return
		}
		if broadcast {
			all.join(conn)
			defer all.leave(conn)
		}
		for {
			message, op, err := wsutil.ReadClientData(conn)
			if err == nil && broadcast {
				err = relayGobwas(&all, op, message)
			} else if err == nil {
				err = wsutil.WriteServerMessage(conn, op, message)
			}
			if err != nil {
				return
			}
		}
	})
}

// The frame functions with what a program that wants the most of them adds: buffered reading, one payload buffer, and
// one write for all frames that were received together.
type gobwasFrames struct {
	conn    net.Conn
	in      *bufio.Reader
	payload []byte
	out     bytes.Buffer
}

func (f *gobwasFrames) read() (ws.Header, error) {
	header, err := ws.ReadHeader(f.in)
	if err != nil {
		return header, err
	}
	if err := ws.CheckHeader(header, ws.StateServerSide); err != nil {
		return header, err
	}
	if header.Length > maxMessage {
		return header, io.ErrShortBuffer
	}
	if int64(cap(f.payload)) < header.Length {
		f.payload = make([]byte, header.Length)
	}
	f.payload = f.payload[:header.Length]
	if _, err := io.ReadFull(f.in, f.payload); err != nil {
		return header, err
	}
	ws.Cipher(f.payload, header.Mask, 0)
	header.Masked = false
	return header, nil
}

func (f *gobwasFrames) flush() error {
	if f.out.Len() == 0 {
		return nil
	}
	_, err := f.conn.Write(f.out.Bytes())
	f.out.Reset()
	return err
}

func (f *gobwasFrames) answer(header ws.Header) error {
	switch header.OpCode {
	case ws.OpPong:
		return nil
	case ws.OpPing:
		header.OpCode = ws.OpPong
	}
	if err := ws.WriteHeader(&f.out, header); err != nil {
		return err
	}
	f.out.Write(f.payload)
	if f.in.Buffered() > 0 && f.out.Len() < 64<<10 && header.OpCode != ws.OpClose {
		return nil
	}
	if err := f.flush(); err != nil || header.OpCode != ws.OpClose {
		return err
	}
	return io.EOF
}

func serveGobwasLow(listener net.Listener) error {
	var all hub[net.Conn]
	return acceptEach(listener, func(conn net.Conn) {
		defer conn.Close()
		broadcast, err := upgradeGobwas(conn)
		if err != nil {
			return
		}
		if broadcast {
			all.join(conn)
			defer all.leave(conn)
		}
		frames := gobwasFrames{conn: conn, in: bufio.NewReaderSize(conn, 4096)}
		for {
			header, err := frames.read()
			if err == nil && broadcast && header.OpCode.IsData() {
				err = relayGobwas(&all, header.OpCode, frames.payload)
			} else if err == nil {
				err = frames.answer(header)
			}
			if err != nil {
				return
			}
		}
	})
}
