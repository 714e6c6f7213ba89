package vllmsim

import "container/list"

// blockSize is how many tokens share one KV block: vLLM's default on CUDA.
const blockSize = 16

// block is the KV of blockSize consecutive tokens of one or more sequences.
type block struct {
	hash uint64 // of all tokens up to its end; 0 while it is not full
	refs int    // sequences that hold it
	idle *list.Element
}

// kvCache hands out blocks. A full block stays findable by its hash after its
// last holder let go, until its place is needed: the least recently used goes
// first.
type kvCache struct {
	size   int
	fresh  int // never used, or let go without a hash
	byHash map[uint64]*block
	idle   *list.List // of *block with a hash and no holder, oldest first
}

func newKVCache(blocks int) *kvCache {
	return &kvCache{size: blocks, fresh: blocks, byHash: map[uint64]*block{}, idle: list.New()}
}

// free is how many blocks can be had.
func (c *kvCache) free() int { return c.fresh + c.idle.Len() }

// usage is the held share of all blocks, 0 to 1.
func (c *kvCache) usage() float64 { return float64(c.size-c.free()) / float64(c.size) }

// take gives an empty block; the caller has made sure that one is free.
func (c *kvCache) take() *block {
	if c.fresh > 0 {
		c.fresh--
	} else {
		c.evict(c.idle.Front().Value.(*block))
	}
	return &block{refs: 1}
}

func (c *kvCache) evict(b *block) {
	c.idle.Remove(b.idle)
	delete(c.byHash, b.hash)
}

// find gives the cached blocks for the longest run of hashes, unheld: a caller
// that wants them holds them before it takes others.
func (c *kvCache) find(hashes []uint64) []*block {
	var found []*block
	for _, h := range hashes {
		b := c.byHash[h]
		if b == nil {
			break
		}
		found = append(found, b)
	}
	return found
}

func (c *kvCache) hold(b *block) {
	if b.refs == 0 {
		c.idle.Remove(b.idle)
		b.idle = nil
	}
	b.refs++
}

// fill says that a block is full; it can be found from now on. A second block
// with the same tokens stays private to its holder.
func (c *kvCache) fill(b *block, hash uint64) {
	if b.hash == 0 && c.byHash[hash] == nil {
		b.hash = hash
		c.byHash[hash] = b
	}
}

// release lets go of a sequence's blocks, the last first, so that the start of
// a prompt, which others are likelier to share, is evicted last.
func (c *kvCache) release(blocks []*block) {
	for i := len(blocks) - 1; i >= 0; i-- {
		b := blocks[i]
		b.refs--
		switch {
		case b.refs > 0:
		case b.hash == 0:
			c.fresh++
		default:
			b.idle = c.idle.PushBack(b)
		}
	}
}

// chain continues the hashes of a sequence's full blocks up to its last token.
func chain(hashes []uint64, salt uint64, tokens []int) []uint64 {
	for len(hashes) < len(tokens)/blockSize {
		h := salt
		if n := len(hashes); n > 0 {
			h = hashes[n-1]
		}
		at := len(hashes) * blockSize
		for _, id := range tokens[at : at+blockSize] {
			h = mix(h, uint64(id))
		}
		hashes = append(hashes, h)
	}
	return hashes
}
