package openai

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
)

// How forms are written by all that write them. Beyond it readers differ: of a form
// that says a thing twice, in quotes within quotes, by RFC 2231, in another character
// set, or behind a delimiter with a space, Go's reader and Python's (python-multipart
// 0.0.34 under Starlette 1.10, which vLLM has) make different fields. They are made
// ready when a form comes: few gateways see one, and all start.
var (
	plainType = onDemand(`(?i)^multipart/form-data *; *boundary=(?:"([\w'()+,./:=?-]+)"|([\w'+.-]+)) *(?:; *charset="?utf-8"? *)?;?$`)
	plainHead = onDemand(`(?i)^content-disposition: *form-data *; *name=(?:"([\w.\[\]-]+)"|([\w.-]+)) *(; *filename="[^"\\\x00-\x1f\x7f]*" *)?(; *filename\*=utf-8''[\w.~%!-]* *)?;?$`)
	anyHead   = onDemand(`^([\w-]+):`)
)

func onDemand(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// plainForm gives each field of a form that all readers read alike; files are none. It
// reports whether it is one; else what it has given is not to be trusted.
func plainForm(body []byte, contentType string, field func(name, value string)) bool {
	kind := plainType().FindStringSubmatch(contentType)
	if kind == nil {
		return false
	}
	delimiter := []byte("\r\n--" + kind[1] + kind[2])
	rest, ok := bytes.CutPrefix(body, delimiter[2:])
	for ok && !bytes.HasPrefix(rest, []byte("--")) {
		head, value, found := bytes.Cut(rest, []byte("\r\n\r\n"))
		head, begins := bytes.CutPrefix(head, []byte("\r\n"))
		if !found || !begins {
			return false
		}
		var is []string
		for line := range strings.SplitSeq(string(head), "\r\n") {
			name := anyHead().FindStringSubmatch(line)
			if name == nil {
				return false
			}
			if strings.EqualFold(name[1], "Content-Disposition") {
				if is != nil {
					return false
				}
				if is = plainHead().FindStringSubmatch(line); is == nil {
					return false
				}
			}
		}
		if value, rest, ok = bytes.Cut(value, delimiter); !ok || is == nil {
			return false
		}
		if is[3]+is[4] == "" {
			field(is[1]+is[2], string(value[:min(len(value), maxField)]))
		}
	}
	return ok
}

// maxField is how much of a field is read, in bytes: longer than any that matters.
const maxField = 1 << 10

// isForeign reports whether a body is in UTF-16 or UTF-32, or begins with a byte order
// mark: Python's json reads these too, and Peek does not.
func isForeign(body []byte) bool {
	return bytes.HasPrefix(body, []byte("\xef\xbb\xbf")) || bytes.HasPrefix(body, []byte("\xff\xfe")) || bytes.HasPrefix(body, []byte("\xfe\xff")) ||
		bytes.IndexByte(body[:min(len(body), 4)], 0) >= 0
}
