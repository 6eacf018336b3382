//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSignalWhileBlocked gives each verb a pipe instead of one of its files, and writes
// nothing to it. The first signal must end the verb, without leaving partial results.
func TestSignalWhileBlocked(t *testing.T) {
	const square = "../../guest-examples/square/c/square.wasm"
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	mustRun(t, "run", square, "--range-of", "0-2", "--no-store", "--progress", "none",
		"--receipt", in("receipt"), "--outputs", in("outputs.cbor"), "-o", in("result"))
	mustRun(t, "chunks", "from-range", "0-2", "-o", in("chunks.cbor"))
	mustRun(t, "keygen", "-o", in("key"))
	if err := os.WriteFile(in("faulty.cbor"), []byte("\xa1\x62do\x64trap"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("vectors"), []byte(`{"vectors": [{"name": "two", "chunk": 2, "output": 4}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	command("run", faultyModule, in("faulty.cbor"), "--no-store", "--retries", "0", "--bundle", in("bundles")).Run()
	files := map[string]string{
		"MODULE": square, "CHUNKS": in("chunks.cbor"), "RECEIPT": in("receipt"), "VECTORS": in("vectors"), "OUTPUTS": in("outputs.cbor"), "KEY": in("key"),
		"BUNDLE": in("bundles/0.bundle"), "FAULTY": faultyModule,
	}
	for _, line := range []string{
		"inspect PIPE",
		"run PIPE CHUNKS --no-store -o OUT",
		"run MODULE PIPE --no-store -o OUT --report OUT2",
		"run MODULE CHUNKS --context PIPE --no-store -o OUT",
		"run MODULE --lines PIPE --no-store -o OUT",
		"run MODULE --jsonl PIPE --no-store -o OUT",
		"run MODULE --csv PIPE --no-store --outputs OUT.csv",
		"verify PIPE MODULE CHUNKS --no-store",
		"verify RECEIPT PIPE CHUNKS --no-store",
		"verify RECEIPT MODULE PIPE --no-store",
		"prove PIPE 1 --outputs OUTPUTS",
		"verify-proof PIPE PROOF",
		"verify-proof RECEIPT PIPE",
		"diff PIPE OUTPUTS",
		"replay PIPE --module FAULTY",
		"replay BUNDLE --module PIPE",
		"test PIPE VECTORS",
		"test MODULE PIPE",
		"check PIPE",
		"check MODULE --chunks PIPE",
		"check MODULE --context PIPE",
		"bench PIPE CHUNKS",
		"bench MODULE PIPE",
		"sign PIPE --key KEY --builder https://ci.example.org/release -o OUT",
		"sign RECEIPT --key PIPE --builder https://ci.example.org/release -o OUT",
		"verify-signature PIPE --key KEY.pub",
		"chunks from-lines PIPE -o OUT",
		"chunks from-jsonl PIPE -o OUT",
		"chunks from-csv PIPE -o OUT",
		"chunks ls PIPE -o OUT",
		"chunks cat PIPE -o OUT",
		"chunks split PIPE -n 2 -o OUT",
		"chunks split PIPE --size 1MiB -o OUT",
		"chunks merge CHUNKS PIPE -o OUT",
		"chunks filter PIPE --range 0-1 -o OUT",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			signalWhileBlocked(t, strings.Fields(line), files)
		})
	}
}

const faultyModule = "../../guest-examples/faulty/c/faulty.wasm"

func signalWhileBlocked(t *testing.T, args []string, files map[string]string) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, arg := range args {
		switch name, ending, _ := strings.Cut(arg, "."); {
		case files[name] != "":
			args[i] = strings.TrimSuffix(files[name]+"."+ending, ".")
		case strings.HasPrefix(arg, "OUT"):
			args[i] = filepath.Join(dir, arg)
		case arg == "PIPE":
			args[i] = pipe
		}
	}
	var said strings.Builder
	cmd := command(args...)
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	ended := make(chan struct{})
	go func() { // until the pipe has been opened for reading, and then until the process ends
		w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		opened <- err
		<-ended
		w.Close()
	}()
	go func() { // until the process ends
		_ = cmd.Wait() // its exit code says more
		close(ended)
	}()
	select {
	case err := <-opened:
		if err != nil {
			t.Error(err)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		<-ended
	case <-ended:
		r, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
	}
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || strings.Count(said.String(), "\n") > 2 || !strings.Contains(said.String(), "interrupted") {
		t.Errorf("exit code %d: %s", code, &said)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("%d files are left: %v, error %v", len(left)-1, left, err)
	}
}
