package limits

import (
	"cmp"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

// Options say where the Redis is, or the Valkey, that several gateways share.
type Options struct {
	// URL is redis://user@host:port/database, or rediss:// for TLS, by a certificate
	// that the system trusts. It has no password. Without a user it is Redis's user
	// default; without a port 6379; without a database 0.
	URL      string
	Password secret.Text
	// Timeout bounds what a request waits for an answer, a new connection and the
	// wait for a free one among it; 0 is 50 ms.
	Timeout time.Duration
	// Log gets a line when Redis goes away, and when it is back; nil is no log.
	Log *slog.Logger
}

const (
	defaultTimeout = 50 * time.Millisecond
	defaultPort    = "6379"
	// connections bounds those of one gateway. Each asks one thing at a time, and
	// Redis answers in far less than a millisecond.
	connections = 32
)

// Validate says what is wrong. It repeats nothing of the URL: any part of it may be
// the password that somebody has put there.
func (o Options) Validate() error {
	_, err := o.redis()
	return err
}

func (o Options) redis() (*redis.Options, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("the URL of Redis cannot be read: write redis://host:port, or rediss:// for TLS; a password belongs into a file of its own, not into the URL")
	}
	if u.Scheme != "redis" && u.Scheme != "rediss" || u.Opaque != "" {
		return nil, errors.New("the URL of Redis does not begin with redis://: write redis://host:port, or rediss:// for TLS")
	}
	if _, has := u.User.Password(); has {
		return nil, errors.New("the URL of Redis has a password in it, where logs and process lists show it: put it into a file, and name this as the password file")
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, errors.New("the URL of Redis has something behind a ? or #: only user, host, port and database belong into it")
	}
	if u.Hostname() == "" {
		return nil, errors.New("the URL of Redis names no host: write redis://host:port")
	}
	port := cmp.Or(u.Port(), defaultPort)
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, errors.New("the URL of Redis has a port that is not a number from 1 to 65535")
	}
	database := uint64(0)
	if name := strings.TrimPrefix(u.Path, "/"); name != "" {
		if database, err = strconv.ParseUint(name, 10, 31); err != nil {
			return nil, errors.New("the URL of Redis has a database (behind the host's /) that is not a number, such as 0")
		}
	}
	if u.User.Username() != "" && o.Password.IsZero() {
		return nil, errors.New("the URL of Redis names a user, and there is no password: name a password file")
	}
	if o.Timeout < 0 {
		return nil, errors.New("the timeout of Redis is below 0")
	}
	longest := max(settleTimeout, o.Timeout)
	ro := &redis.Options{
		Addr:     net.JoinHostPort(u.Hostname(), port),
		Username: u.User.Username(),
		Password: o.Password.Reveal(),
		DB:       int(database),
		// Contexts bound everything; these are for what has none. The shorter of both
		// holds, so they are no shorter than any context.
		ContextTimeoutEnabled: true,
		DialTimeout:           longest,
		ReadTimeout:           longest,
		WriteTimeout:          longest,
		PoolTimeout:           longest,
		PoolSize:              connections,
		MaxRetries:            -1, // a second attempt would count twice
		DialerRetries:         1,
		Protocol:              2, // what a script answers needs no more
		// Less to say on a new connection, which a request may be waiting for.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if u.Scheme == "rediss" {
		ro.TLSConfig = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	return ro, nil
}
