package runtime_test

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// processUsage returns the processor time and the peak memory of a process.
func processUsage(p *os.ProcessState) (time.Duration, int64) {
	return p.UserTime() + p.SystemTime(), p.SysUsage().(*syscall.Rusage).Maxrss << 10
}

// boundProcess ends this process if it uses more.
func boundProcess(t *testing.T, processor time.Duration, memory uint64) {
	for resource, limit := range map[int]uint64{syscall.RLIMIT_CPU: uint64(processor / time.Second), syscall.RLIMIT_AS: memory} {
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			t.Fatal(err)
		}
	}
}
