package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"sync"

	coder "github.com/coder/websocket"
	"github.com/gorilla/websocket"
	xnet "golang.org/x/net/websocket"
)

func serveGorilla(listener net.Listener) error {
	upgrader := websocket.Upgrader{
		ReadBufferSize:  4096,
		WriteBufferSize: 4096,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     func(*http.Request) bool { return true },
	}
	serve := func(all *hub[*websocket.Conn]) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer conn.Close()
			conn.SetReadLimit(maxMessage)
			if all != nil {
				all.join(conn)
				defer all.leave(conn)
			}
			for {
				kind, message, err := conn.ReadMessage()
				if err == nil && all == nil {
					err = conn.WriteMessage(kind, message)
				} else if err == nil {
					var prepared *websocket.PreparedMessage
					if prepared, err = websocket.NewPreparedMessage(kind, message); err == nil {
						all.each(func(member *websocket.Conn) { member.WritePreparedMessage(prepared) })
					}
				}
				if err != nil {
					return
				}
			}
		}
	}
	return serveHTTP(listener, serve(nil), serve(&hub[*websocket.Conn]{}))
}

func serveCoder(listener net.Listener) error {
	options := &coder.AcceptOptions{InsecureSkipVerify: true, CompressionMode: coder.CompressionDisabled}
	serve := func(all *hub[*coder.Conn]) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, err := coder.Accept(w, r, options)
			if err != nil {
				return
			}
			defer conn.CloseNow()
			conn.SetReadLimit(maxMessage)
			if all != nil {
				all.join(conn)
				defer all.leave(conn)
			}
			ctx := context.Background()
			var message bytes.Buffer // read into again, where Conn.Read would allocate
			for {
				kind, reader, err := conn.Reader(ctx)
				if err == nil {
					message.Reset()
					_, err = message.ReadFrom(reader)
				}
				if err == nil && all == nil {
					err = conn.Write(ctx, kind, message.Bytes())
				} else if err == nil {
					all.each(func(member *coder.Conn) { member.Write(ctx, kind, message.Bytes()) })
				}
				if err != nil {
					return
				}
			}
		}
	}
	return serveHTTP(listener, serve(nil), serve(&hub[*coder.Conn]{}))
}

type xnetMessage struct {
	kind byte
	data []byte
}

// A codec that keeps the type of a message, which the library's own do not.
var xnetCodec = xnet.Codec{
	Marshal: func(v any) ([]byte, byte, error) {
		message := v.(*xnetMessage)
		return message.data, message.kind, nil
	},
	Unmarshal: func(data []byte, kind byte, v any) error {
		*v.(*xnetMessage) = xnetMessage{kind, data}
		return nil
	},
}

func serveXnet(listener net.Listener) error {
	serve := func(all *hub[*xnet.Conn]) http.HandlerFunc {
		server := xnet.Server{Handler: func(conn *xnet.Conn) {
			defer conn.Close() // answers the close frame
			conn.MaxPayloadBytes = maxMessage
			if all != nil {
				all.join(conn)
				defer all.leave(conn)
			}
			for {
				var message xnetMessage
				err := xnetCodec.Receive(conn, &message)
				if err == nil && all == nil {
					err = xnetCodec.Send(conn, &message)
				} else if err == nil {
					all.each(func(member *xnet.Conn) { xnetCodec.Send(member, &message) })
				}
				if err != nil {
					return
				}
			}
		}}
		return server.ServeHTTP
	}
	return serveHTTP(listener, serve(nil), serve(&hub[*xnet.Conn]{}))
}
