//go:build !linux

package runtime_test

import (
	"os"
	"testing"
	"time"
)

func processUsage(p *os.ProcessState) (time.Duration, int64) { return p.UserTime() + p.SystemTime(), 0 }

func boundProcess(*testing.T, time.Duration, uint64) {}
