package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"
	xnet "golang.org/x/net/websocket"
)

// load keeps one message under way on every connection while a turn lasts. See bench/peers/clients.
type load struct {
	url     string
	payload []byte
	compare bool // in the first turn
	running atomic.Bool
	echoes  atomic.Uint64
	turn    sync.WaitGroup // the connections that are not done with it
}

// answered tells whether the next message is to be sent.
func (l *load) answered(echo []byte) bool {
	if len(echo) != len(l.payload) || (l.compare && !bytes.Equal(echo, l.payload)) {
		giveUp(fmt.Errorf("wrong echo of %d bytes", len(echo)))
	}
	l.echoes.Add(1)
	if l.running.Load() {
		return true
	}
	l.turn.Done()
	return false
}

func giveUp(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// blocking makes what starts a turn of a connection that sends and then reads.
func (l *load) blocking(send func([]byte) error, read func() ([]byte, error)) func() {
	start := make(chan struct{})
	go func() {
		for range start {
			for more := true; more; {
				giveUp(send(l.payload))
				echo, err := read()
				giveUp(err)
				more = l.answered(echo)
			}
		}
	}()
	return func() { start <- struct{}{} }
}

// Each connects once, and returns what starts a turn of the connection.
var clients = map[string]func(*load) (func(), error){
	"gobwas_low": dialGobwas,
	"gorilla":    dialGorilla,
	"coder":      dialCoder,
	"xnet":       dialXnet,
	"gws":        dialGws,
}

// The frame functions, with memory that is used again and one write for each frame.
func dialGobwas(l *load) (func(), error) {
	conn, buffered, _, err := ws.Dial(context.Background(), l.url)
	if err != nil {
		return nil, err
	}
	if buffered == nil {
		buffered = bufio.NewReaderSize(conn, 4096)
	}
	var out bytes.Buffer
	echo := make([]byte, len(l.payload))
	send := func(payload []byte) error {
		out.Reset()
		header := ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Mask: ws.NewMask(), Length: int64(len(payload))}
		if err := ws.WriteHeader(&out, header); err != nil {
			return err
		}
		begin := out.Len()
		out.Write(payload)
		ws.Cipher(out.Bytes()[begin:], header.Mask, 0)
		_, err := conn.Write(out.Bytes())
		return err
	}
	return l.blocking(send, func() ([]byte, error) {
		header, err := ws.ReadHeader(buffered)
		if err != nil || header.Length != int64(len(echo)) {
			return nil, err
		}
		_, err = io.ReadFull(buffered, echo)
		return echo, err
	}), nil
}

func dialGorilla(l *load) (func(), error) {
	// Longer than the write buffer, a message of a client would leave in fragments.
	buffer := len(l.payload) + 4096
	dialer := websocket.Dialer{ReadBufferSize: 4096, WriteBufferSize: buffer, WriteBufferPool: &sync.Pool{}}
	conn, _, err := dialer.Dial(l.url, nil)
	if err != nil {
		return nil, err
	}
	send := func(payload []byte) error { return conn.WriteMessage(websocket.BinaryMessage, payload) }
	return l.blocking(send, func() ([]byte, error) {
		_, echo, err := conn.ReadMessage()
		return echo, err
	}), nil
}

func dialCoder(l *load) (func(), error) {
	ctx := context.Background()
	conn, _, err := coder.Dial(ctx, l.url, &coder.DialOptions{CompressionMode: coder.CompressionDisabled})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxMessage)
	var echo bytes.Buffer // read into again, where Conn.Read would allocate
	send := func(payload []byte) error { return conn.Write(ctx, coder.MessageBinary, payload) }
	return l.blocking(send, func() ([]byte, error) {
		_, reader, err := conn.Reader(ctx)
		if err == nil {
			echo.Reset()
			_, err = echo.ReadFrom(reader)
		}
		return echo.Bytes(), err
	}), nil
}

func dialXnet(l *load) (func(), error) {
	conn, err := xnet.Dial(l.url, "", "http://127.0.0.1/")
	if err != nil {
		return nil, err
	}
	conn.MaxPayloadBytes = maxMessage
	send := func(payload []byte) error { return xnetCodec.Send(conn, &xnetMessage{xnet.BinaryFrame, payload}) }
	return l.blocking(send, func() ([]byte, error) {
		var echo xnetMessage
		err := xnetCodec.Receive(conn, &echo)
		return echo.data, err
	}), nil
}

type gwsClient struct {
	gws.BuiltinEventHandler
	load *load
}

func (c *gwsClient) OnMessage(conn *gws.Conn, message *gws.Message) {
	defer message.Close()
	if c.load.answered(message.Bytes()) {
		giveUp(conn.WriteMessage(gws.OpcodeBinary, c.load.payload))
	}
}

func dialGws(l *load) (func(), error) {
	option := &gws.ClientOption{Addr: l.url, ReadMaxPayloadSize: maxMessage, WriteMaxPayloadSize: maxMessage}
	conn, _, err := gws.NewClient(&gwsClient{load: l}, option)
	if err != nil {
		return nil, err
	}
	go conn.ReadLoop()
	return func() { giveUp(conn.WriteMessage(gws.OpcodeBinary, l.payload)) }, nil
}

// runClients takes one turn for each line `SECONDS` of the standard input, and prints how many messages came back.
func runClients(library string, port, connections, size int) error {
	dial, known := clients[library]
	if !known {
		return fmt.Errorf("%s is no client here", library)
	}
	l := &load{url: "ws://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) + "/", compare: true}
	for i := 0; i < size; i++ {
		l.payload = append(l.payload, byte(i*7+i/256))
	}
	var starts []func()
	for i := 0; i < connections; i++ {
		start, err := dial(l)
		if err != nil {
			return err
		}
		starts = append(starts, start)
	}
	fmt.Println("ready")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		seconds, err := strconv.ParseFloat(strings.TrimSpace(input.Text()), 64)
		if err != nil {
			return err
		}
		l.echoes.Store(0)
		l.running.Store(true)
		l.turn.Add(len(starts))
		for _, start := range starts {
			start()
		}
		time.Sleep(time.Duration(seconds * float64(time.Second)))
		l.running.Store(false)
		l.turn.Wait()
		l.compare = false
		fmt.Println(l.echoes.Load())
	}
	return nil
}
