//go:build unix

package main

import (
	"bufio"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A signal ends a pipe with endless input, after it has answered all that it has read.
func TestPipeIsInterrupted(t *testing.T) {
	cmd := command("pipe", "--jsonl", "../../guest-examples/square/c/square.wasm")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	if _, err := io.WriteString(in, "3\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := answers.ReadString('\n'); err != nil || line != `{"id":0,"output":9}`+"\n" { // before the input ends
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(answers)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || len(rest) > 0 {
		t.Errorf("exit code %d, then %q", code, rest)
	}
}

// A pipe whose reader has closed stdout ends silently.
func TestPipeEndsWithItsReader(t *testing.T) {
	cmd := command("pipe", "--jsonl", "../../guest-examples/square/c/square.wasm")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = write, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	read.Close()
	for err == nil {
		_, err = io.WriteString(in, "3\n")
	}
	if err := cmd.Wait(); err != nil || said.Len() > 0 {
		t.Errorf("%v: %s", err, said.String())
	}
}
