package main

import (
	"io"
	"net"
	"net/http"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	nbws "github.com/lesismal/nbio/nbhttp/websocket"
	"github.com/lxzan/gws"
)

type gwsHandler struct {
	gws.BuiltinEventHandler
	all *hub[*gws.Conn]
}

func (h *gwsHandler) OnOpen(conn *gws.Conn) {
	if h.all != nil {
		h.all.join(conn)
	}
}

func (h *gwsHandler) OnClose(conn *gws.Conn, _ error) {
	if h.all != nil {
		h.all.leave(conn)
	}
}

func (h *gwsHandler) OnPing(conn *gws.Conn, payload []byte) { conn.WritePong(payload) }

func (h *gwsHandler) OnMessage(conn *gws.Conn, message *gws.Message) {
	defer message.Close()
	if h.all == nil {
		conn.WriteMessage(message.Opcode, message.Bytes())
		return
	}
	broadcaster := gws.NewBroadcaster(message.Opcode, message.Bytes())
	defer broadcaster.Close()
	h.all.each(func(member *gws.Conn) { broadcaster.Broadcast(member) })
}

func serveGws(listener net.Listener) error {
	serve := func(all *hub[*gws.Conn]) http.HandlerFunc {
		upgrader := gws.NewUpgrader(&gwsHandler{all: all}, &gws.ServerOption{
			ReadMaxPayloadSize:  maxMessage,
			WriteMaxPayloadSize: maxMessage,
		})
		return func(w http.ResponseWriter, r *http.Request) {
			if conn, err := upgrader.Upgrade(w, r); err == nil {
				go conn.ReadLoop() // the request's own memory is free again
			}
		}
	}
	return serveHTTP(listener, serve(nil), serve(&hub[*gws.Conn]{}))
}

// Non-blocking: the connections share one poller on epoll, in place of a goroutine each.
func serveNbio(listener net.Listener) error {
	logging.Output = io.Discard
	serve := func(all *hub[*nbws.Conn]) http.HandlerFunc {
		upgrader := nbws.NewUpgrader()
		upgrader.CheckOrigin = func(*http.Request) bool { return true }
		upgrader.MessageLengthLimit = maxMessage
		upgrader.OnMessage(func(conn *nbws.Conn, kind nbws.MessageType, data []byte) {
			if all == nil {
				conn.WriteMessage(kind, data)
				return
			}
			all.each(func(member *nbws.Conn) { member.WriteMessage(kind, data) })
		})
		if all != nil {
			upgrader.OnOpen(all.join)
			upgrader.OnClose(func(conn *nbws.Conn, _ error) { all.leave(conn) })
		}
		return func(w http.ResponseWriter, r *http.Request) { upgrader.Upgrade(w, r, nil) }
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", serve(nil))
	mux.HandleFunc(broadcastPath, serve(&hub[*nbws.Conn]{}))
	engine := nbhttp.NewEngine(nbhttp.Config{
		Network: "tcp",
		Addrs:   []string{listener.Addr().String()},
		Listen:  func(string, string) (net.Listener, error) { return listener, nil },
		NPoller: 1,
		MaxLoad: 1 << 20,
		IOMod:   nbhttp.IOModNonBlocking,

		MaxWebsocketFramePayloadSize: maxMessage,
		ReleaseWebsocketPayload:      true,
		Handler:                      mux,
	})
	if err := engine.Start(); err != nil {
		return err
	}
	select {}
}
