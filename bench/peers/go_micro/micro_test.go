// The operations of bench/micro/frame_bench, mask_bench and upgrade_bench with Go libraries, over a connection in
// memory: reading copies the peer's bytes to where the library wants them, writing copies to a buffer, as a kernel does.
package micro

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gorilla/websocket"
	xnet "golang.org/x/net/websocket"
)

var sizes = []int{0, 1, 125, 126, 127, 1024, 4096, 16384, 65535, 65536, 1 << 20}

// The same as bench/micro/samples.h has.
const request = "GET /chat/room?user=42 HTTP/1.1\r\n" +
	"Host: localhost:9001\r\n" +
	"Connection: Upgrade\r\n" +
	"Pragma: no-cache\r\n" +
	"Cache-Control: no-cache\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 " +
	"Safari/537.36\r\n" +
	"Upgrade: websocket\r\n" +
	"Origin: http://localhost:9001\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\n" +
	"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n" +
	"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" +
	"\r\n"

// Bytes that a Read brings at most, if the library asks for as many: as frame_bench decodes them.
const received = 16384

// A connection whose peer first sends `once` and then `frames` for ever, and reads whatever comes.
type memory struct {
	once, frames []byte
	at, written  int
	out          []byte
}

func (m *memory) Read(to []byte) (int, error) {
	if len(m.once) > 0 {
		n := copy(to, m.once)
		m.once = m.once[n:]
		return n, nil
	}
	if len(m.frames) == 0 {
		return 0, io.EOF
	}
	n := copy(to, m.frames[m.at:])
	m.at = (m.at + n) % len(m.frames)
	return n, nil
}

func (m *memory) Write(from []byte) (int, error) {
	m.written += len(from)
	for left := from; len(left) > 0; {
		left = left[copy(m.out, left):]
	}
	return len(from), nil
}
func (m *memory) Close() error                     { return nil }
func (m *memory) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (m *memory) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (m *memory) SetDeadline(time.Time) error      { return nil }
func (m *memory) SetReadDeadline(time.Time) error  { return nil }
func (m *memory) SetWriteDeadline(time.Time) error { return nil }

func newMemory(once string, frame []byte) *memory {
	frames := frame
	if len(frame) > 0 {
		frames = bytes.Repeat(frame, max(1, received/len(frame)))
	}
	return &memory{once: []byte(once), frames: frames, out: make([]byte, 1<<20+64)}
}

// Stands in for net/http's server: libraries take the connection over from it.
type responder struct {
	conn   *memory
	buffer *bufio.ReadWriter
	header http.Header
}

func (r *responder) Header() http.Header            { return r.header }
func (r *responder) Write(from []byte) (int, error) { return r.conn.Write(from) }
func (r *responder) WriteHeader(status int) {
	out := r.buffer.Writer
	io.WriteString(out, "HTTP/1.1 "+strconv.Itoa(status)+" "+http.StatusText(status)+"\r\n")
	r.header.Write(out)
	io.WriteString(out, "\r\n")
	out.Flush()
}
func (r *responder) Hijack() (net.Conn, *bufio.ReadWriter, error) { return r.conn, r.buffer, nil }

// What net/http's server does before the handler runs: a buffered reader and writer, and the request parsed.
func respond(tb testing.TB, conn *memory) (*responder, *http.Request) {
	r := &responder{conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)), http.Header{}}
	parsed, err := http.ReadRequest(r.buffer.Reader)
	check(tb, err)
	return r, parsed
}

func check(tb testing.TB, err error) {
	if err != nil {
		tb.Fatal(err)
	}
}

func maskedFrame(size int) []byte {
	payload := bytes.Repeat([]byte{'a'}, size)
	var head []byte
	switch {
	case size < 126:
		head = []byte{0x82, 0x80 | byte(size)}
	case size < 65536:
		head = binary.BigEndian.AppendUint16([]byte{0x82, 0xfe}, uint16(size))
	default:
		head = binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, uint64(size))
	}
	key := [4]byte{0x37, 0x21, 0xfa, 0x3d}
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	return append(append(head, key[:]...), payload...)
}

// CPU time of this process so far: what is compared, so that a busy machine favours nobody. The garbage collector's is
// part of it.
func cpu() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func measure(b *testing.B, run func()) {
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	for i := 0; i < b.N; i++ {
		run()
	}
	b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// ---- One operation of each library: run returns the payload's size ----

func each(b *testing.B, prepare func(*testing.B, *memory, int) func() int) {
	for _, size := range sizes {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			conn := newMemory("", maskedFrame(size))
			run := prepare(b, conn, size)
			if got := run(); got != size {
				b.Fatalf("%d bytes instead of %d", got, size)
			}
			b.SetBytes(int64(size))
			measure(b, func() { run() })
		})
	}
}

func upgraded(b *testing.B, conn *memory) (*responder, *http.Request) {
	conn.once = []byte(request)
	// Only the request: what is buffered behind it would be lost with some libraries.
	r := &responder{conn, nil, http.Header{}}
	parsed, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(conn.once)))
	check(b, err)
	conn.once = nil
	r.buffer = bufio.NewReadWriter(bufio.NewReaderSize(conn, received), bufio.NewWriter(conn))
	return r, parsed
}

// The convenient way: a frame with memory of its own.
func BenchmarkReadFrame_gobwas(b *testing.B) {
	each(b, func(b *testing.B, conn *memory, size int) func() int {
		reader := bufio.NewReaderSize(conn, received)
		return func() int {
			frame, err := ws.ReadFrame(reader)
			check(b, err)
			ws.Cipher(frame.Payload, frame.Header.Mask, 0)
			return len(frame.Payload)
		}
	})
}

// The way of its low-level documentation: header, then the payload into memory that is used again.
func BenchmarkReadFrame_gobwasReuse(b *testing.B) {
	each(b, func(b *testing.B, conn *memory, size int) func() int {
		reader := bufio.NewReaderSize(conn, received)
		memory := make([]byte, size)
		scratch := make([]byte, ws.MaxHeaderSize)
		return func() int {
			header, err := ws.ReadHeaderBuffer(reader, scratch)
			check(b, err)
			check(b, ws.CheckHeader(header, ws.StateServerSide))
			_, err = io.ReadFull(reader, memory[:header.Length])
			check(b, err)
			ws.Cipher(memory[:header.Length], header.Mask, 0)
			return int(header.Length)
		}
	})
}

func BenchmarkReadFrame_gorilla(b *testing.B) {
	each(b, func(b *testing.B, conn *memory, size int) func() int {
		r, parsed := upgraded(b, conn)
		c, err := (&websocket.Upgrader{}).Upgrade(r, parsed, nil)
		check(b, err)
		return func() int {
			_, payload, err := c.ReadMessage()
			check(b, err)
			return len(payload)
		}
	})
}

func BenchmarkReadFrame_coder(b *testing.B) {
	each(b, func(b *testing.B, conn *memory, size int) func() int {
		r, parsed := upgraded(b, conn)
		c, err := coder.Accept(r, parsed, nil)
		check(b, err)
		c.SetReadLimit(-1)
		ctx := context.Background()
		return func() int {
			_, payload, err := c.Read(ctx)
			check(b, err)
			return len(payload)
		}
	})
}

func BenchmarkReadFrame_xnet(b *testing.B) {
	each(b, func(b *testing.B, conn *memory, size int) func() int {
		c := xnetConn(b, conn)
		return func() int {
			var payload []byte
			check(b, xnet.Message.Receive(c, &payload))
			return len(payload)
		}
	})
}

// The handler's connection, kept after it has returned: this one is closed by nobody.
func xnetConn(b *testing.B, conn *memory) *xnet.Conn {
	r, parsed := upgraded(b, conn)
	var kept *xnet.Conn
	xnet.Server{Handler: func(c *xnet.Conn) { kept = c }}.ServeHTTP(r, parsed)
	kept.PayloadType = xnet.BinaryFrame
	kept.MaxPayloadBytes = 1 << 21
	return kept
}

func writing(b *testing.B, prepare func(*testing.B, *memory) func([]byte) error) {
	each(b, func(b *testing.B, conn *memory, size int) func() int {
		write := prepare(b, conn)
		payload := bytes.Repeat([]byte{'a'}, size)
		return func() int {
			check(b, write(payload))
			return size
		}
	})
}

func BenchmarkWriteFrame_gobwas(b *testing.B) {
	writing(b, func(b *testing.B, conn *memory) func([]byte) error {
		return func(payload []byte) error { return ws.WriteFrame(conn, ws.NewBinaryFrame(payload)) }
	})
}

func BenchmarkWriteFrame_gobwasReuse(b *testing.B) {
	writing(b, func(b *testing.B, conn *memory) func([]byte) error {
		scratch := make([]byte, ws.MaxHeaderSize)
		return func(payload []byte) error {
			header := ws.Header{Fin: true, OpCode: ws.OpBinary, Length: int64(len(payload))}
			if err := ws.WriteHeaderBuffer(conn, header, scratch); err != nil {
				return err
			}
			_, err := conn.Write(payload)
			return err
		}
	})
}

func BenchmarkWriteFrame_gorilla(b *testing.B) {
	writing(b, func(b *testing.B, conn *memory) func([]byte) error {
		r, parsed := upgraded(b, conn)
		c, err := (&websocket.Upgrader{}).Upgrade(r, parsed, nil)
		check(b, err)
		return func(payload []byte) error { return c.WriteMessage(websocket.BinaryMessage, payload) }
	})
}

func BenchmarkWriteFrame_coder(b *testing.B) {
	writing(b, func(b *testing.B, conn *memory) func([]byte) error {
		r, parsed := upgraded(b, conn)
		c, err := coder.Accept(r, parsed, nil)
		check(b, err)
		ctx := context.Background()
		return func(payload []byte) error { return c.Write(ctx, coder.MessageBinary, payload) }
	})
}

func BenchmarkWriteFrame_xnet(b *testing.B) {
	writing(b, func(b *testing.B, conn *memory) func([]byte) error {
		c := xnetConn(b, conn)
		return func(payload []byte) error { return xnet.Message.Send(c, payload) }
	})
}

// The others keep theirs to themselves.
func BenchmarkMask_gobwas(b *testing.B) {
	each(b, func(b *testing.B, conn *memory, size int) func() int {
		payload := make([]byte, 6+size)[6:] // as behind the header of a short frame
		key := [4]byte{0x37, 0x21, 0xfa, 0x3d}
		return func() int {
			ws.Cipher(payload, key, 0)
			return len(payload)
		}
	})
}

// ---- The server's side of the opening handshake: request in, 101 out ----

func upgrading(b *testing.B, upgrade func(*memory) error) {
	conn := newMemory("", nil)
	bytes := []byte(request)
	measure(b, func() {
		conn.once = bytes
		conn.written = 0
		check(b, upgrade(conn))
		if conn.written < 100 {
			b.Fatal("no answer")
		}
	})
}

func BenchmarkUpgrade_gobwas(b *testing.B) {
	upgrading(b, func(conn *memory) error {
		_, err := ws.Upgrade(conn)
		return err
	})
}

func BenchmarkUpgrade_gorilla(b *testing.B) {
	upgrader := &websocket.Upgrader{}
	upgrading(b, func(conn *memory) error {
		r, parsed := respond(b, conn)
		_, err := upgrader.Upgrade(r, parsed, nil)
		return err
	})
}

func BenchmarkUpgrade_coder(b *testing.B) {
	upgrading(b, func(conn *memory) error {
		r, parsed := respond(b, conn)
		c, err := coder.Accept(r, parsed, nil)
		if err == nil {
			c.CloseNow() // else its goroutine stays
		}
		return err
	})
}

func BenchmarkUpgrade_xnet(b *testing.B) {
	server := xnet.Server{Handler: func(*xnet.Conn) {}}
	upgrading(b, func(conn *memory) error {
		r, parsed := respond(b, conn)
		server.ServeHTTP(r, parsed)
		return nil
	})
}
