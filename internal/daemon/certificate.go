package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"time"
)

// maxPEM bounds a file with a certificate or a key: chains have some KiB.
const maxPEM = 1 << 20

// ReadCertificate reads a certificate and its key. The error names the file that is to
// blame, where it is one of them alone.
func ReadCertificate(files *Files, certFile, keyFile string) (*tls.Certificate, error) {
	cert, err := files.Read(certFile, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", certFile, err)
	}
	key, err := files.Read(keyFile, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("key of the certificate, %s: %w", keyFile, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return &pair, nil
}

// certificate gives, at each handshake, what is in the files, once it is sound.
func (s Server) certificate(ctx context.Context) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	var current atomic.Pointer[tls.Certificate]
	files := &Files{}
	pair, err := ReadCertificate(files, s.TLSCert, s.TLSKey)
	if err != nil {
		return nil, err
	}
	current.Store(pair)
	go files.Follow(ctx, nil, func(files *Files) func() {
		pair, err := ReadCertificate(files, s.TLSCert, s.TLSKey)
		return func() {
			if err != nil {
				s.Log.Error("the certificate is not taken; the one before goes on", "error", err)
				return
			}
			current.Store(pair)
			s.Log.Info("the certificate is another", "until", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	})
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }, nil
}
