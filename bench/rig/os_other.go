//go:build !linux

package rig

import (
	"errors"
	"syscall"
	"time"
)

var errNotLinux = errors.New("the rig reads CPU time and memory as Linux tells them")

func cpuOf(int) (time.Duration, error) { return 0, errNotLinux }

func dieWithUs() *syscall.SysProcAttr { return nil }

func raiseFiles() (int, error) { return 0, errNotLinux }

func goFirst() {}
