package http1

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// appendHead writes a status line and all of a header that is the handler's to say:
// where the body ends, and whether the connection does, is not.
func appendHead(b []byte, minor, status int, h http.Header) []byte {
	if minor == 0 {
		b = append(b, "HTTP/1.0 "...)
	} else {
		b = append(b, "HTTP/1.1 "...)
	}
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	b = append(b, "\r\n"...)
	dated := false
	for name, values := range h {
		switch name {
		case "Content-Length", "Transfer-Encoding":
			continue
		case "Content-Type":
			if status == http.StatusNotModified {
				continue
			}
		case "Connection":
			for _, v := range values {
				if v = trimSpace(v); !strings.EqualFold(v, "close") && !strings.EqualFold(v, "keep-alive") {
					b = appendField(b, name, v)
				}
			}
			continue
		case "Date":
			dated = true
		default:
			if !isToken(name) {
				continue
			}
		}
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	if !dated && status >= 200 {
		b = append(b, dateLine()...)
	}
	return b
}

// appendField writes one line. What would end it early becomes a space.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	at := len(b)
	b = append(b, trimSpace(value)...)
	for i, c := range b[at:] {
		if c < ' ' && c != '\t' {
			b[at+i] = ' '
		}
	}
	return append(b, "\r\n"...)
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// seal decides where the body ends, and whether the connection does, and puts that
// between head and body, of which n bytes are in out; last: it has no more. It gives
// where out begins.
func (a *answer) seal(n int, last bool) (start int) {
	var room [gap]byte
	end := room[:0]
	length := a.length
	if length < 0 && last && bodyAllowed(a.status) && (!a.isHead || a.written > 0) {
		length = a.written
	}
	a.framed = plain
	switch {
	case length >= 0:
		end = appendLength(end, length)
	case !bodyAllowed(a.status) || a.isHead:
	case a.minor >= 1:
		a.framed = inChunks
		end = append(end, "Transfer-Encoding: chunked\r\n"...)
	default:
		a.close = true
	}
	a.close = a.close || a.c.server.closing.Load()
	if a.hasBody && !a.close && !a.duplex && !a.body.drop() {
		a.close = true
	}
	switch {
	case a.status == http.StatusSwitchingProtocols:
	case a.close && a.minor >= 1:
		end = append(end, "Connection: close\r\n"...)
	case !a.close && a.minor == 0:
		end = append(end, "Connection: keep-alive\r\n"...)
	}
	end = append(end, "\r\n"...)
	at := a.base
	if a.framed == inChunks && n > 0 {
		at -= putSize(a.out[:at], n)
	}
	at -= len(end)
	copy(a.out[at:], end)
	start = at - a.headLen
	copy(a.out[start:], a.out[:a.headLen])
	return start
}

// dateLine is the same for a second.
func dateLine() []byte {
	now := time.Now()
	last := date.Load()
	if last == nil || last.second != now.Unix() {
		last = &dated{now.Unix(), []byte("Date: " + now.UTC().Format(http.TimeFormat) + "\r\n")}
		date.Store(last)
	}
	return last.line
}

type dated struct {
	second int64
	line   []byte
}

var date atomic.Pointer[dated]
