//go:build unix

package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// isAlive reports whether a process with the given start time, 0 if unknown, may be
// running.
func isAlive(id int, start uint64) bool {
	if err := syscall.Kill(id, 0); errors.Is(err, syscall.ESRCH) {
		return false
	}
	now := processStart(id)
	return start == 0 || now == 0 || now == start
}

// processStart returns the start time of a process in ticks since boot. It is 0 on
// systems other than Linux. See proc(5), field 22 of stat.
func processStart(id int) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name before it may contain anything
	if len(fields) < 20 {
		return 0
	}
	start, _ := strconv.ParseUint(string(fields[19]), 10, 64)
	return start
}

// idNamespace identifies the namespace of process ids, if the system has several.
func idNamespace() string {
	name, _ := os.Readlink("/proc/self/ns/pid")
	return name
}
