package vllmsim

import "testing"

func TestSharedBlocksStayHeld(t *testing.T) {
	c := newKVCache(4)
	b := c.take()
	c.fill(b, 7)
	c.hold(b)
	c.release([]*block{b})
	if c.free() != 3 || c.usage() != 0.25 {
		t.Errorf("one of two holders let go: free %d, usage %v; want 3, 0.25", c.free(), c.usage())
	}
	c.release([]*block{b})
	if c.free() != 4 || len(c.find([]uint64{7})) != 1 {
		t.Errorf("both let go: free %d, found %d; want 4, and the block still found", c.free(), len(c.find([]uint64{7})))
	}
}

func TestLeastRecentlyUsedBlockGoesFirst(t *testing.T) {
	c := newKVCache(3)
	var blocks []*block
	for hash := uint64(1); hash <= 3; hash++ {
		b := c.take()
		c.fill(b, hash)
		blocks = append(blocks, b)
	}
	c.release(blocks) // the last first: 3 is the oldest
	c.hold(blocks[2]) // used again: now 2 is
	c.release(blocks[2:])
	c.take()
	for hash, want := range map[uint64]int{1: 1, 2: 0, 3: 1} {
		if got := len(c.find([]uint64{hash})); got != want {
			t.Errorf("after one eviction, block %d is found %d times; want %d", hash, got, want)
		}
	}
}

// A run of hashes ends at the first gap: what follows depends on it.
func TestFindStopsAtTheFirstGap(t *testing.T) {
	c := newKVCache(3)
	for _, hash := range []uint64{1, 3} {
		c.fill(c.take(), hash)
	}
	if got := len(c.find([]uint64{1, 2, 3})); got != 1 {
		t.Errorf("found %d blocks; want 1", got)
	}
}
