// Package pgtest starts PostgreSQL servers for tests: each in a temporary directory,
// on a socket, as an unprivileged user even if the tests run as root.
//
// If no server is installed, tests are skipped; with WASM_JOBS_REQUIRE_POSTGRES set, they
// fail. WASM_JOBS_TEST_POSTGRES may hold the URL of a server that [URL] uses instead.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a server that the test started.
type Server struct {
	dir     string // data in "data", socket in it
	bin     string
	args    []string
	process *exec.Cmd
}

// binaries returns the folder of initdb and postgres, "" if there is none.
func binaries() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			found = append(found, filepath.Dir(real))
		}
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		found = append(found, strings.TrimSpace(string(out)))
	}
	for i := len(found) - 1; i >= 0; i-- {
		if _, err := os.Stat(filepath.Join(found[i], "initdb")); err == nil {
			return found[i]
		}
	}
	return ""
}

// Missing is the message if no PostgreSQL server is installed.
const Missing = "PostgreSQL is not installed: the package postgresql of Debian has it"

// Installed reports whether a PostgreSQL server is installed. It is also true if tests
// require one, so that they fail without it.
func Installed() bool { return binaries() != "" || os.Getenv("WASM_JOBS_REQUIRE_POSTGRES") != "" }

// Need skips the test, or fails it, if there is no server to start.
func Need(t testing.TB) string {
	t.Helper()
	bin := binaries()
	if bin != "" {
		return bin
	}
	if os.Getenv("WASM_JOBS_REQUIRE_POSTGRES") != "" {
		t.Fatal(Missing)
	}
	t.Skip(Missing)
	return ""
}

// Start starts a server for one test. A durable server syncs to the disk, which a test
// needs that kills the server; settings are lines of postgresql.conf.
func Start(t testing.TB, durable bool, settings ...string) *Server {
	t.Helper()
	bin := Need(t)
	dir, err := os.MkdirTemp("/tmp", "wjpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := start(dir, bin, durable, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

func start(dir, bin string, durable bool, settings []string) (*Server, error) {
	s := &Server{dir: dir, bin: bin}
	if err := own(dir); err != nil {
		return nil, err
	}
	out, err := s.command("initdb", "-D", s.Data(), "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	if !durable {
		settings = append([]string{"fsync=off"}, settings...)
	}
	settings = append([]string{"recovery_init_sync_method=syncfs", "shared_buffers=64MB", "max_wal_size=256MB"}, settings...)
	for _, setting := range settings {
		s.args = append(s.args, "-c", setting)
	}
	return s, s.Launch()
}

// command runs a program of PostgreSQL as a user that is not root.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	unprivileged(c)
	return c
}

// Launch starts the server again, and waits until it answers.
func (s *Server) Launch() error {
	c := s.command("postgres", append([]string{"-D", s.Data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "max_connections=200"}, s.args...)...)
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	if err := startTied(c); err != nil {
		return err
	}
	s.process = c
	for deadline := time.Now().Add(60 * time.Second); ; {
		conn, err := pgx.Connect(context.Background(), s.URL("postgres"))
		if err == nil {
			return conn.Close(context.Background())
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("the server does not answer: %w: %s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Data returns the folder of the server's data.
func (s *Server) Data() string { return filepath.Join(s.dir, "data") }

// Dir returns a folder that the server may write to.
func (s *Server) Dir() string { return s.dir }

// Kill stops the server at once, as a crash does.
func (s *Server) Kill() { s.stop(syscall.SIGQUIT) }

func (s *Server) stop(signal os.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(signal)
	_ = s.process.Wait()
	s.process = nil
}

// URL returns the URL of a database.
func (s *Server) URL(database string) string {
	return "postgres://postgres@/" + database + "?host=" + s.dir + "&sslmode=disable"
}

var databases atomic.Int64

// Database makes a new database, and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := "t" + strconv.FormatInt(databases.Add(1), 10)
	s.Exec(t, "postgres", "create database "+name)
	return s.URL(name)
}

// Exec executes SQL in a database.
func (s *Server) Exec(t testing.TB, database, sql string) {
	t.Helper()
	Exec(t, s.URL(database), sql)
}

// Exec executes SQL in the database of a URL.
func Exec(t testing.TB, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

var shared struct {
	sync.Mutex
	*Server
	err error
}

// Shared returns a server that all tests of the process use. It ends with the
// process. It does not sync to the disk.
func Shared(t testing.TB) *Server {
	t.Helper()
	bin := Need(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.Server == nil && shared.err == nil {
		dir, err := os.MkdirTemp("/tmp", "wjpg")
		if err != nil {
			t.Fatal(err)
		}
		shared.Server, shared.err = start(dir, bin, false, nil)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.Server
}

// Stop ends the shared server, if there is one, and removes it: for TestMain.
func Stop() {
	shared.Lock()
	defer shared.Unlock()
	if shared.Server != nil {
		shared.Kill()
		os.RemoveAll(shared.dir)
	}
}

// URL returns the URL of a new database on the shared server, or on the server of
// WASM_JOBS_TEST_POSTGRES.
func URL(t testing.TB) string {
	t.Helper()
	if given := os.Getenv("WASM_JOBS_TEST_POSTGRES"); given != "" {
		name := "wjtest" + strconv.Itoa(os.Getpid()) + "x" + strconv.FormatInt(databases.Add(1), 10)
		Exec(t, given, "create schema "+name)
		t.Cleanup(func() {
			conn, err := pgx.Connect(context.Background(), given)
			if err == nil {
				_, _ = conn.Exec(context.Background(), "drop schema "+name+" cascade")
				conn.Close(context.Background())
			}
		})
		separator := "?"
		if strings.Contains(given, "?") {
			separator = "&"
		}
		return given + separator + "wasm_jobs_schema=" + name
	}
	return Shared(t).Database(t)
}

// Standby makes a streaming standby of the server and starts it. Its name in
// synchronous_standby_names is standby.
func (s *Server) Standby(t testing.TB, settings ...string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wjpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := own(dir); err != nil {
		t.Fatal(err)
	}
	standby := &Server{dir: dir, bin: s.bin}
	for _, setting := range append([]string{"recovery_init_sync_method=syncfs", "shared_buffers=64MB", "hot_standby=on"}, settings...) {
		standby.args = append(standby.args, "-c", setting)
	}
	from := "host=" + s.dir + " user=postgres application_name=standby"
	if out, err := standby.command("pg_basebackup", "-d", from, "-D", standby.Data(), "-R", "-X", "stream", "-c", "fast", "--no-sync").CombinedOutput(); err != nil {
		t.Skipf("no standby can be made: %v: %s", err, out)
	}
	if err := standby.Launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Kill)
	return standby
}

// Promote makes a standby a primary, and waits until it is.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, "postgres", "select pg_promote(true, 60)")
}

// Small makes a database in a tablespace of limited size, and returns its URL and a
// function that gives it room. It skips the test if no file system can be mounted.
func (s *Server) Small(t testing.TB, size int) (url string, room func()) {
	t.Helper()
	dir := filepath.Join(s.dir, "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	limit := func(bytes int) string { return "size=" + strconv.Itoa(bytes) }
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", limit(size), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a small disk needs the right to mount a tmpfs: %s", strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() {
		s.Kill()
		_ = exec.Command("umount", dir).Run()
	})
	if err := own(dir); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "postgres", "create tablespace small location '"+dir+"'")
	s.Exec(t, "postgres", "create database small tablespace small")
	return s.URL("small"), func() {
		if out, err := exec.Command("mount", "-o", "remount,"+limit(16*size), dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}
