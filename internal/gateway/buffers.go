package gateway

import "sync"

// Buffers for request bodies are used again: prompts are long, and a process that
// otherwise needs little memory would clear it, and look through all of it for what
// may go, every few of them. Of a request with 200 KB that was more than half of the
// cost.

// bufferSizes are the sizes that are kept, each four times the one before.
var bufferSizes = [...]int{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}

var kept [len(bufferSizes)]sync.Pool

// newBuffer gives an empty buffer for n bytes at least.
func newBuffer(n int) []byte {
	for i, size := range bufferSizes {
		if n > size {
			continue
		}
		if b, ok := kept[i].Get().(*[]byte); ok {
			return (*b)[:0]
		}
		return make([]byte, 0, size)
	}
	return make([]byte, 0, n)
}

// giveBuffer takes a buffer back that nobody uses any more.
func giveBuffer(b []byte) {
	for i, size := range bufferSizes {
		if cap(b) == size {
			b = b[:0]
			kept[i].Put(&b)
		}
	}
}
