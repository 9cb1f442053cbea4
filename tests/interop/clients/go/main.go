// Go's gorilla/websocket against an echo server: go run . URL. As an echo server: go run . serve.
package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const scripts = "levada água κόσμε 日本語 한국어 \U0001f30a\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001d11e"

var (
	url            string
	passed, failed int
)

func open(compress bool) (*websocket.Conn, error) {
	dialer := websocket.Dialer{HandshakeTimeout: 30 * time.Second, EnableCompression: compress}
	conn, _, err := dialer.Dial(url, nil)
	if err == nil {
		err = conn.SetReadDeadline(time.Now().Add(60 * time.Second))
	}
	return conn, err
}

// with runs test on a connection of its own and then shakes hands to close it.
func with(compress bool, test func(*websocket.Conn) error) error {
	conn, err := open(compress)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := test(conn); err != nil {
		return err
	}
	return closeWith(conn, websocket.CloseNormalClosure, "")
}

func closeWith(conn *websocket.Conn, code int, reason string) error {
	message := websocket.FormatCloseMessage(code, reason)
	if err := conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(time.Minute)); err != nil {
		return err
	}
	_, _, err := conn.ReadMessage()
	if !websocket.IsCloseError(err, code) {
		return fmt.Errorf("expected close %d, got %v", code, err)
	}
	return nil
}

func receive(conn *websocket.Conn, kind int, wanted []byte) error {
	got, data, err := conn.ReadMessage()
	if err != nil {
		return err
	}
	if got != kind || !bytes.Equal(data, wanted) {
		return fmt.Errorf("message of kind %d and %d bytes, expected kind %d and %d bytes", got, len(data), kind, len(wanted))
	}
	return nil
}

func echo(conn *websocket.Conn, kind int, message []byte) error {
	sent := make(chan error, 1)
	go func() { sent <- conn.WriteMessage(kind, message) }()
	if err := receive(conn, kind, message); err != nil {
		return err
	}
	return <-sent
}

func echoCase(compress bool, kind int, message []byte) func() error {
	return func() error {
		return with(compress, func(conn *websocket.Conn) error { return echo(conn, kind, message) })
	}
}

// fragmented flushes a fragment whenever the dialer's write buffer of 4096 bytes is full.
func fragmented(size int) func() error {
	return func() error {
		return with(false, func(conn *websocket.Conn) error {
			message := random(size)
			writer, err := conn.NextWriter(websocket.BinaryMessage)
			if err != nil {
				return err
			}
			for at := 0; at < size; at += 1000 {
				if _, err := writer.Write(message[at:min(at+1000, size)]); err != nil {
					return err
				}
			}
			if err := writer.Close(); err != nil {
				return err
			}
			return receive(conn, websocket.BinaryMessage, message)
		})
	}
}

func ping() error {
	return with(false, func(conn *websocket.Conn) error {
		var pongs []string
		conn.SetPongHandler(func(payload string) error { pongs = append(pongs, payload); return nil })
		wanted := []string{"", "ping", strings.Repeat("\xff", 125)}
		for _, payload := range wanted {
			if err := conn.WriteControl(websocket.PingMessage, []byte(payload), time.Now().Add(time.Minute)); err != nil {
				return err
			}
		}
		if err := echo(conn, websocket.TextMessage, []byte("after")); err != nil {
			return err
		}
		if strings.Join(pongs, "|") != strings.Join(wanted, "|") {
			return fmt.Errorf("pongs %q", pongs)
		}
		return nil
	})
}

func closing(code int, reason string) func() error {
	return func() error {
		conn, err := open(false)
		if err != nil {
			return err
		}
		defer conn.Close()
		return closeWith(conn, code, reason)
	}
}

func concurrent(count, rounds int) func() error {
	return func() error {
		errs := make([]error, count)
		var group sync.WaitGroup
		for i := range count {
			group.Add(1)
			go func() {
				defer group.Done()
				errs[i] = with(false, func(conn *websocket.Conn) error {
					for j := range rounds {
						if err := echo(conn, websocket.TextMessage, fmt.Appendf(nil, "%d %d", i, j)); err != nil {
							return err
						}
					}
					return nil
				})
			}()
		}
		group.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func pipelined(count int) func() error {
	return func() error {
		return with(false, func(conn *websocket.Conn) error {
			sent := make(chan error, 1)
			go func() {
				for i := range count {
					if err := conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "%d", i)); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			for i := range count {
				if err := receive(conn, websocket.TextMessage, fmt.Appendf(nil, "%d", i)); err != nil {
					return err
				}
			}
			return <-sent
		})
	}
}

func random(size int) []byte {
	data := make([]byte, size)
	rand.New(rand.NewSource(int64(size))).Read(data)
	return data
}

func check(name string, test func() error) {
	if err := test(); err != nil {
		failed++
		fmt.Println("FAILED", name, err)
		return
	}
	passed++
	fmt.Println("ok", name)
}

func main() {
	if os.Args[1] == "serve" {
		fmt.Println(serve(os.Args[2:]))
		os.Exit(1)
	}
	url = os.Args[1]
	for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 16 << 20} {
		check(fmt.Sprintf("text of %d bytes", size), echoCase(false, websocket.TextMessage, bytes.Repeat([]byte("t"), size)))
		check(fmt.Sprintf("binary of %d bytes", size), echoCase(false, websocket.BinaryMessage, random(size)))
	}
	check("text in many scripts", echoCase(false, websocket.TextMessage, []byte(scripts)))
	check("large text in many scripts", echoCase(false, websocket.TextMessage, []byte(strings.Repeat(scripts, 10000))))
	check("compression offered", echoCase(true, websocket.TextMessage, []byte(strings.Repeat(scripts, 100))))
	check("fragmented binary of 100000 bytes", fragmented(100000))
	check("fragmented binary of 4 MiB", fragmented(4<<20))
	check("ping and pong", ping)
	check("close 1000", closing(1000, ""))
	check("close 1001 with a reason", closing(1001, "going away"))
	check("close 4999 with a reason in many scripts", closing(4999, "água 日本語 \U0001f30a"))
	check("50 connections at the same time, 20 echoes each", concurrent(50, 20))
	check("1000 pipelined texts", pipelined(1000))
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
