package rig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// key is one that clients show, and what the gateway knows of it.
type key struct{ Name, Text, Hash string }

// keys are the same each time: they are of no use to anybody.
func keys(n int) []key {
	all := make([]key, n)
	for i := range all {
		seed := sha256.Sum256(fmt.Append(nil, "bench ", i))
		text := "sk-bench-" + hex.EncodeToString(seed[:16])
		hash := sha256.Sum256([]byte(text))
		all[i] = key{fmt.Sprintf("caller-%06d", i), text, "sha256:" + hex.EncodeToString(hash[:])}
	}
	return all
}

// certify makes a certificate for 127.0.0.1, and puts it into files.
func certify(s *site) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, &private.PublicKey, private)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	s.Cert, s.Key, s.Both = filepath.Join(s.Dir, "cert.pem"), filepath.Join(s.Dir, "key.pem"), filepath.Join(s.Dir, "both.pem")
	for path, data := range map[string][]byte{s.Cert: certPEM, s.Key: keyPEM, s.Both: append(certPEM, keyPEM...)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	s.trusted = &tls.Config{RootCAs: pool}
	return nil
}
