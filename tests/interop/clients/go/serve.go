package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	neturl "net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// serve runs an echo server made of gorilla/websocket, for checking_client.cc, which says what its paths do. It prints
// its URL first. With certificate and key it speaks TLS.
func serve(files []string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if len(files) == 2 {
		fmt.Printf("listening wss://%s\n", listener.Addr())
		// HTTP/2 knows no Upgrade: an empty map turns it off.
		server := http.Server{Handler: http.HandlerFunc(serveOne), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
		return server.ServeTLS(listener, files[0], files[1])
	}
	fmt.Printf("listening ws://%s\n", listener.Addr())
	return http.Serve(listener, http.HandlerFunc(serveOne))
}

func serveOne(writer http.ResponseWriter, request *http.Request) {
	path := strings.Split(request.URL.EscapedPath(), "/")
	if path[1] == "refuse" {
		http.Error(writer, "no", http.StatusForbidden)
		return
	}
	upgrader := websocket.Upgrader{Subprotocols: []string{"levada.echo"}}
	conn, err := upgrader.Upgrade(writer, request, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	switch path[1] {
	case "close":
		err = closeFirst(conn, path[2], path[3])
	case "ping":
		err = ask(conn)
	}
	for err == nil {
		err = echoOne(conn, path[1] == "fragments")
	}
}

// closeFirst sends the close frame; reading then waits for the answer.
func closeFirst(conn *websocket.Conn, code, encoded string) error {
	number, err := strconv.Atoi(code)
	reason, problem := neturl.PathUnescape(encoded)
	if err = errors.Join(err, problem); err != nil {
		return err
	}
	return conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(number, reason), soon())
}

// ask pings, and sends a text when the pong has come.
func ask(conn *websocket.Conn) error {
	conn.SetPongHandler(func(payload string) error {
		if payload != "are you there" {
			return fmt.Errorf("pong %q", payload)
		}
		return conn.WriteMessage(websocket.TextMessage, []byte("pong"))
	})
	return conn.WriteControl(websocket.PingMessage, []byte("are you there"), soon())
}

// echoOne answers one message, in fragments of the write buffer's 4096 bytes if that is asked for.
func echoOne(conn *websocket.Conn, fragments bool) error {
	kind, data, err := conn.ReadMessage()
	if err != nil {
		return err
	}
	if !fragments {
		return conn.WriteMessage(kind, data)
	}
	writer, err := conn.NextWriter(kind)
	for at := 0; at < len(data) && err == nil; at += 1000 {
		_, err = writer.Write(data[at:min(at+1000, len(data))])
	}
	return errors.Join(err, writer.Close())
}

func soon() time.Time { return time.Now().Add(time.Minute) }
