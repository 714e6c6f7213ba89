package vllmsim

import (
	"fmt"
	"math/rand/v2"
)

// mix folds a value into a hash: splitmix64's finalizer, never 0.
func mix(h, v uint64) uint64 {
	h ^= v + 0x9e3779b97f4a7c15 + h<<6 + h>>2
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31 | 1
}

func mixString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = mix(h, uint64(s[i]))
	}
	return mix(h, uint64(len(s)))
}

func mixTokens(h uint64, tokens []int) uint64 {
	for _, id := range tokens {
		h = mix(h, uint64(id))
	}
	return h
}

func dice(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, mix(seed, 1))) }

func hex16(h uint64) string { return fmt.Sprintf("%016x", h) }
