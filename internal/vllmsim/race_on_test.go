//go:build race

package vllmsim

const raceDetector = true
