package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/memnet"
)

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newPair makes a certificate with a serial number, and its key.
func newPair(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), DNSNames: []string{"server"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// A certificate that changes is taken for the next handshake, if it is whole.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	firstCert, firstKey := newPair(t, 1)
	secondCert, secondKey := newPair(t, 2)
	write(t, certFile, firstCert)
	write(t, keyFile, firstKey)
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Net
		l, err := network.Listen("server:1")
		if err != nil {
			t.Fatal(err)
		}
		var log lockedBuffer
		s := Server{Name: "test", Handler: http.NotFoundHandler(), TLSCert: certFile, TLSKey: keyFile, Log: slog.New(slog.NewTextHandler(&log, nil))}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Serve(ctx, l) }()
		serial := func() int64 {
			raw, err := network.Dial(t.Context(), "tcp", "server:1")
			if err != nil {
				t.Fatal(err)
			}
			conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			defer conn.Close()
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			if conn.ConnectionState().NegotiatedProtocol != "h2" {
				t.Error("HTTP/2 is not spoken")
			}
			return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
		}
		is := func(want int64, when string) {
			t.Helper()
			time.Sleep(3 * pollEvery)
			synctest.Wait()
			if got := serial(); got != want {
				t.Errorf("%s: certificate %d; want %d\n%s", when, got, want, log.String())
			}
		}
		is(1, "at first")
		write(t, certFile, secondCert)
		is(1, "with a key that is not its own")
		if !strings.Contains(log.String(), "the certificate is not taken") || !strings.Contains(log.String(), "private key does not match public key") {
			t.Errorf("logged %s", log.String())
		}
		write(t, keyFile, secondKey)
		is(2, "when both are there")
		os.Remove(keyFile)
		is(2, "without a key")
		write(t, keyFile, firstKey)
		write(t, certFile, firstCert)
		is(1, "at last")
		if n := strings.Count(log.String(), "\n"); n != 5 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
		cancel()
		<-ended
	})
}

// What is wrong at the start ends it.
func TestCertificateAtTheStart(t *testing.T) {
	dir := t.TempDir()
	cert, key := newPair(t, 1)
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write(t, certFile, cert)
	for name, tt := range map[string]struct{ key, want string }{
		"no key":      {"", "key of the certificate, " + keyFile + ": there is no such file"},
		"no PEM":      {"x", "with key " + keyFile + ": tls: failed to find any PEM data in key input"},
		"another key": {key[:len(key)/2], "tls: failed to find any PEM data in key input"},
	} {
		os.Remove(keyFile)
		if tt.key != "" {
			write(t, keyFile, tt.key)
		}
		err := Server{Name: "test", Listen: "127.0.0.1:0", TLSCert: certFile, TLSKey: keyFile, Log: slog.New(slog.DiscardHandler)}.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
