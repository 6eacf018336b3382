package pgtest

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// account returns the user that servers run as, if the tests run as root.
func account() (uid, gid uint32, ok bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		id, _ := strconv.ParseUint(u.Uid, 10, 32)
		group, _ := strconv.ParseUint(u.Gid, 10, 32)
		return uint32(id), uint32(group), true
	}
	return 65534, 65534, true
}

// own gives a folder to that user.
func own(dir string) error {
	uid, gid, ok := account()
	if !ok {
		return nil
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(uid), int(gid))
	})
}

func unprivileged(c *exec.Cmd) {
	if uid, gid, ok := account(); ok {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
}

// startTied starts a process that ends when this process ends, for any reason.
func startTied(c *exec.Cmd) error {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the signal is sent when the thread ends: it must live as long as the process
		started <- c.Start()
		select {}
	}()
	return <-started
}

// CPU returns the processor time of all processes of the server so far.
func (s *Server) CPU() (sum time.Duration) {
	own := s.process.Process.Pid
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		parent, _ := strconv.Atoi(fields[1])
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		ticks := func(i int) time.Duration {
			n, _ := strconv.Atoi(fields[i])
			return time.Duration(n) * 10 * time.Millisecond
		}
		switch {
		case pid == own: // including its children that have ended
			sum += ticks(11) + ticks(12) + ticks(13) + ticks(14)
		case parent == own:
			sum += ticks(11) + ticks(12)
		}
	}
	return sum
}
