package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pooler starts pgbouncer in transaction mode before a server, with few connections to it,
// and returns a function that makes the URL of a database behind it. It skips the test if
// pgbouncer is not installed.
func (s *Server) Pooler(t testing.TB, connections int) func(database string) string {
	t.Helper()
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		bin = "/usr/sbin/pgbouncer" // which is not in the path of every user
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skip("pgbouncer is not installed: the package pgbouncer of Debian has it")
	}
	dir := s.poolerFiles(t, connections)
	c := exec.Command(bin, "-q", filepath.Join(dir, "config.ini"))
	c.Dir = dir
	unprivileged(c)
	if err := startTied(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	url := func(database string) string {
		return "postgres://postgres@/" + database + "?host=" + dir + "&port=6432&sslmode=disable&default_query_exec_mode=exec"
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.Connect(context.Background(), url("postgres"))
		if err == nil {
			_ = conn.Close(context.Background())
			return url
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("the pooler does not answer: %v: %s", err, text)
		}
	}
}

// poolerFiles writes the files of a pooler into a new directory.
func (s *Server) poolerFiles(t testing.TB, connections int) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wjpool")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := fmt.Sprintf(`[databases]
* = host=%s
[pgbouncer]
unix_socket_dir = %s
listen_addr =
listen_port = 6432
auth_type = trust
auth_file = %s/users
logfile = %s/log
pool_mode = transaction
default_pool_size = %d
max_client_conn = 200
`, s.dir, dir, dir, dir, connections)
	for name, text := range map[string]string{"config.ini": config, "users": "\"postgres\" \"\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := own(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
