// Command reverseproxy is what a Go programmer writes in an afternoon: Go's own
// ReverseProxy before some backends, with a pool that is large enough.
package main

import (
	"flag"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "host:port")
	backends := flag.String("backends", "", "host:port,host:port")
	cert := flag.String("cert", "", "PEM file; with it and -key the port speaks TLS")
	key := flag.String("key", "", "PEM file")
	flag.Parse()
	hosts := strings.Split(*backends, ",")
	var turn atomic.Uint64
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: hosts[turn.Add(1)%uint64(len(hosts))]})
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 1 << 15, DisableCompression: true},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Without it a stream is cut now and then: https://go.dev/issue/40747.
		http.NewResponseController(w).EnableFullDuplex()
		proxy.ServeHTTP(w, r)
	})
	server := &http.Server{Addr: *listen, Handler: handler}
	if *cert != "" {
		log.Fatal(server.ListenAndServeTLS(*cert, *key))
	}
	log.Fatal(server.ListenAndServe())
}
