//go:build !race

package vllmsim

const raceDetector = false
