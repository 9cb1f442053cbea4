// Echo servers with the WebSocket libraries of Go: `peers --library NAME [--port N] [--cert FILE --key FILE]`; and
// clients: `peers --library NAME --connect PORT --connections C --bytes B` (clients.go).
//
// Each is configured as its documentation does for throughput. All run on one thread of Go code (GOMAXPROCS 1). A
// message on any path comes back to its sender; on /broadcast it goes to all connections of that path, encoded once
// where the library can.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
)

const maxMessage = 64 << 20
const broadcastPath = "/broadcast"

var libraries = map[string]func(net.Listener) error{
	"gobwas_low":    serveGobwasLow,
	"gobwas_wsutil": serveGobwasWsutil,
	"gorilla":       serveGorilla,
	"coder":         serveCoder,
	"xnet":          serveXnet,
	"gws":           serveGws,
	"nbio":          serveNbio,
}

// hub holds the connections of one path.
type hub[T comparable] struct {
	mutex   sync.Mutex
	members map[T]struct{}
}

func (h *hub[T]) join(member T) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.members == nil {
		h.members = make(map[T]struct{})
	}
	h.members[member] = struct{}{}
}

func (h *hub[T]) leave(member T) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	delete(h.members, member)
}

// each holds the lock, so only one message is on its way to all at a time. A member that cannot be written to finds
// out by itself.
func (h *hub[T]) each(send func(T)) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	for member := range h.members {
		send(member)
	}
}

func serveHTTP(listener net.Listener, echo, broadcast http.HandlerFunc) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", echo)
	mux.HandleFunc(broadcastPath, broadcast)
	return http.Serve(listener, mux)
}

func acceptEach(listener net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go serve(conn)
	}
}

func secured(listener net.Listener, cert, key string) (net.Listener, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	return tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}}), err
}

func names() string {
	list := make([]string, 0, len(libraries))
	for name := range libraries {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func main() {
	library := flag.String("library", "", "one of "+names())
	port := flag.Int("port", 0, "0: any free one")
	cert := flag.String("cert", "", "PEM file: wss, not with nbio")
	key := flag.String("key", "", "PEM file of its key")
	connect := flag.Int("connect", 0, "be a client of this port")
	connections := flag.Int("connections", 1, "of a client")
	size := flag.Int("bytes", 16, "of a client's messages")
	flag.Parse()
	if *connect != 0 {
		runtime.GOMAXPROCS(1)
		if err := runClients(*library, *connect, *connections, *size); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	serve, known := libraries[*library]
	if !known {
		fmt.Fprintln(os.Stderr, "no such library; there are", names())
		os.Exit(2)
	}
	runtime.GOMAXPROCS(1)
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err == nil {
		fmt.Printf("listening ws://%s\n", listener.Addr())
		if *cert != "" {
			listener, err = secured(listener, *cert, *key)
		}
	}
	if err == nil {
		err = serve(listener)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
