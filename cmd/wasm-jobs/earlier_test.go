package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// earlierJob is a job in the store of testdata/earlier.
type earlierJob struct {
	name      string
	id        string   // the first digits
	state     string   // as it was left
	run       []string // as it was run, if that can be done again with nothing to execute
	redrive   []string // flags with which it is redriven
	redriven  string   // its state then
	succeeded int      // chunks, then
	stdin     string   // file
}

func earlierJobs() []earlierJob {
	return []earlierJob{
		{name: "squares", id: "9e08829a4a5f", state: journal.Succeeded, redriven: journal.Succeeded, succeeded: 8,
			run: []string{"square.wasm", "chunks.cbor", "--meta", "owner=me", "--name", "squares"}},
		{name: "faulty", id: "5dcaa5c32154", state: journal.Failed, redrive: []string{"--fuel", "0"}, redriven: journal.Succeeded, succeeded: 3},
		{name: "lines", id: "1cb27a66f30f", state: journal.Succeeded, redriven: journal.Succeeded, succeeded: 3,
			run: []string{"command.wasm", "--lines", "lines.txt", "--chunk-lines", "2", "--arg", "upper", "--env", "B=x, y", "--env", "A=", "--dir", "data:/d", "--name", "lines"}},
		{name: "csv", id: "9cf408b5bef6", state: journal.Succeeded, redriven: journal.Succeeded, succeeded: 2,
			run: []string{"echo.wasm", "--csv", "table.csv", "--delimiter", ";", "--id-key", "", "--name", "csv"}},
		{name: "jsonl", id: "85b5d95371f9", state: journal.Failed, redriven: journal.Failed, succeeded: 1},
		{name: "context", id: "0220a91d4b47", state: journal.Succeeded, redriven: journal.Succeeded, succeeded: 4,
			run: []string{"context.wasm", "chunks.cbor", "--context", "context.cbor", "--range", "2-5", "--no-metering", "--name", "context"}},
		{name: "files", id: "0fa993f7edd8", state: journal.Succeeded, redriven: journal.Succeeded, succeeded: 2,
			run: []string{"command.wasm", "--files", "data", "--split", "8", "--split-lines", "--stdin", "cbor", "--arg", "count", "--max-chunk", "1MiB", "--name", "files"}},
		{name: "range", id: "bfd5a6e76119", state: journal.Succeeded, redriven: journal.Succeeded, succeeded: 10,
			run: []string{"echo.wasm", "--range-of", "0-9", "--native-nans", "--name", "range"}},
		{name: "piped", id: "8b1b637d2c3b", state: journal.Succeeded, redrive: []string{"--chunks", "lines.txt"}, redriven: journal.Succeeded, succeeded: 4,
			stdin: "lines.txt", run: []string{"echo.wasm", "--lines", "-", "--as", "bytes", "--chunk-bytes", "8", "--name", "piped"}},
		{name: "dirs", id: "993869bce4d0", state: journal.Failed, redrive: []string{"--fuel", "0"}, redriven: journal.Failed, succeeded: 2},
		{name: "embedded", id: "6b010ff9c4f3", state: journal.Failed, redrive: []string{"--fuel", "0"}, redriven: journal.Failed, succeeded: 3},
		{name: "941caf83db85", id: "cb0971a8f05c", state: journal.Succeeded, redriven: journal.Succeeded, succeeded: 8,
			redrive: []string{"--module", "context.wasm", "--chunks", "chunks.cbor", "--with-context", "context.cbor"}},
	}
}

// earlier is a copy of testdata/earlier for one test, which works in it.
type earlier struct {
	t    *testing.T
	root string // of the repository
}

func openEarlier(t *testing.T) *earlier {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	e := &earlier{t, root}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "testdata", "earlier"))); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	for _, module := range []string{
		"guest-examples/square/wat/square.wasm", "guest-examples/faulty/c/faulty.wasm",
		"testdata/command/command.wasm", "testdata/wasm/echo.wasm", "testdata/wasm/context.wasm",
	} {
		e.write(filepath.Base(module), e.read(filepath.Join(root, module)))
	}
	r, err := gzip.NewReader(bytes.NewReader(e.read("store.db.gz")))
	if err != nil {
		t.Fatal(err)
	}
	db, err := io.ReadAll(r)
	if err == nil {
		err = os.Mkdir("store", 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	e.write("store/store.db", db)
	return e
}

func (e *earlier) read(path string) []byte {
	e.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		e.t.Fatal(err)
	}
	return b
}

func (e *earlier) write(path string, b []byte) {
	e.t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// move changes the paths in the records from /tmp/before to the files' directory.
func (e *earlier) move() {
	e.t.Helper()
	here, err := os.Getwd()
	if err != nil {
		e.t.Fatal(err)
	}
	e.edit("replace(spec, '/tmp/before', '" + here + "')")
}

// edit replaces all specs in the store by the value of an SQL expression of spec.
func (e *earlier) edit(expression string) {
	e.t.Helper()
	db, err := sqlite3.Open("store/store.db")
	if err != nil {
		e.t.Fatal(err)
	}
	defer db.Close()
	if err := db.Exec("update jobs set spec=" + expression); err != nil {
		e.t.Fatal(err)
	}
}

// TestSpansOfHostileRecords checks that spans of chunks that the job does not have
// are passed over.
func TestSpansOfHostileRecords(t *testing.T) {
	for _, edit := range []string{
		"first=first+1000000", "first=first-5", "count=1000000", "count=9223372036854775807", "first=9223372036854770000+first", "chunks=zeroblob(64)", "chunks=zeroblob(640000)",
	} {
		t.Run(edit, func(t *testing.T) {
			e := openEarlier(t)
			db, err := sqlite3.Open("store/store.db")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Exec("update spans set "+edit), db.Close()); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"list"}, {"status", "9e08829a4a5f"}, {"info", "9e08829a4a5f", "1"}, {"output", "9e08829a4a5f"}, {"describe", "9e08829a4a5f"}, {"report", "9e08829a4a5f"}, {"top"}} {
				_, messages, code := e.command(nil, append(args, "--store", "store")...)
				if strings.Contains(messages, "panic") || strings.Contains(messages, "goroutine") {
					t.Errorf("%v: %d %s", args, code, messages)
				}
			}
		})
	}
}

// TestReportsOfEarlierJobs makes reports of jobs that were recorded without a profile.
func TestReportsOfEarlierJobs(t *testing.T) {
	e := openEarlier(t)
	out, messages, code := e.command(nil, "list", "--store", "store", "--json")
	var jobs []jobState
	if err := json.Unmarshal([]byte(out), &jobs); err != nil || code != 0 || len(jobs) < 5 {
		t.Fatalf("list: %d %s %v", code, messages, err)
	}
	for _, j := range jobs {
		out, messages, code := e.command(nil, "report", "--store", "store", j.Job)
		if code != 0 || !strings.Contains(out, "\nstate ") || !strings.Contains(out, j.State) || strings.Contains(out, "Distributions") {
			t.Errorf("job %s: %d %s %s", j.Name, code, messages, out)
		}
	}
}

// command runs the command, and returns its output and exit code.
func (e *earlier) command(in io.Reader, args ...string) (out, messages string, code int) {
	var o, m bytes.Buffer
	code = Main(e.t.Context(), append([]string{"wasm-jobs"}, args...), in, &o, &m)
	return o.String(), m.String(), code
}

// report runs run or redrive, and returns its report.
func (e *earlier) report(in string, args ...string) (r host.Report) {
	e.t.Helper()
	stdin, err := os.Open(in)
	if in != "" && err != nil {
		e.t.Fatal(err)
	}
	defer stdin.Close()
	_, messages, code := e.command(stdin, append(args, "--store", "store", "--report", "report.json", "--progress", "none")...)
	if code != exitOK && code != exitFailed {
		e.t.Fatalf("%v: %d %s", args, code, messages)
	}
	if err := json.Unmarshal(e.read("report.json"), &r); err != nil {
		e.t.Fatal(err)
	}
	return r
}

// records returns the records of the store's jobs.
func (e *earlier) records() (found []*journal.Record) {
	e.t.Helper()
	s, err := sqlite.Open(e.t.Context(), "store", sqlite.Options{})
	if err != nil {
		e.t.Fatal(err)
	}
	defer s.Close()
	for j, err := range journal.List(e.t.Context(), s) {
		if err != nil {
			e.t.Fatal(err)
		}
		found = append(found, j)
	}
	return found
}

// TestEarlierRecordsAreRead checks that records of an earlier build are shown
// completely, and that today's specs have the same ids and keys.
func TestEarlierRecordsAreRead(t *testing.T) {
	e := openEarlier(t)
	records := map[string]*journal.Record{}
	for _, j := range e.records() {
		records[j.Spec.Name] = j
		if err := j.Spec.Validate(); err != nil {
			t.Errorf("%s: %v", j.Spec.Name, err)
		}
		if action, id := j.Spec.Action(), j.Spec.ID(); action != j.Record.Action || id != j.Record.ID {
			t.Errorf("%s has the key %x and the id %x, and was recorded with %x and %x", j.Spec.Name, action, id, j.Record.Action, j.Record.ID)
		}
	}
	if len(records) != len(earlierJobs()) {
		t.Errorf("%d jobs", len(records))
	}
	list, _, _ := e.command(nil, "list", "--store", "store")
	for _, want := range earlierJobs() {
		if !strings.Contains(list, want.id) {
			t.Errorf("list lacks %s", want.id)
		}
		status, messages, code := e.command(nil, "status", "--store", "store", want.id)
		if code != exitOK || !strings.Contains(status, want.state) {
			t.Errorf("%s: %d %s%s", want.name, code, status, messages)
		}
		e.checkDescribed(want.id, records[want.name].Record.Spec)
	}
	if info, _, code := e.command(nil, "info", "--store", "store", "5dcaa5c32154", "100"); code != exitOK || !strings.Contains(info, "fuel") {
		t.Errorf("info: %d %s", code, info)
	}
	if out, _, code := e.command(nil, "output", "--store", "store", "1cb27a66f30f", "--concat"); code != exitOK || out != "ONE\nTWO\nTHREE\nFOUR\nFIVE\n" {
		t.Errorf("output: %d %q", code, out)
	}
}

// checkDescribed checks that describe shows everything in the record, under the same
// names.
func (e *earlier) checkDescribed(id string, recorded []byte) {
	e.t.Helper()
	out, messages, code := e.command(nil, "describe", "--json", "--store", "store", id)
	var want, got map[string]any
	if err := json.Unmarshal(recorded, &want); err != nil {
		e.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		e.t.Fatalf("%d %v %s", code, err, messages)
	}
	if path := missing("", want, got); path != "" {
		e.t.Errorf("%s: describe has not %s as it was recorded: %s", id, path, out)
	}
}

// missing returns the path of a value in want that got lacks; "" = none.
func missing(path string, want, got any) string {
	a, isMap := want.(map[string]any)
	b, _ := got.(map[string]any)
	if !isMap {
		if reflect.DeepEqual(want, got) {
			return ""
		}
		return path
	}
	for key := range a {
		if found := missing(path+"."+key, a[key], b[key]); found != "" {
			return found
		}
	}
	return ""
}

// TestEarlierJobsRunAgain checks that chunks that an earlier build finished are not
// executed again, and that its records can be redriven: first as the earlier build
// wrote them, and then as today's build has rewritten them.
func TestEarlierJobsRunAgain(t *testing.T) {
	t.Run("run", func(t *testing.T) {
		e := openEarlier(t)
		for _, j := range earlierJobs() {
			if j.run == nil {
				continue
			}
			r := e.report(j.stdin, append([]string{"run"}, j.run...)...)
			if !strings.HasPrefix(r.Job, j.id) || r.Attempts != 0 || r.Chunks.Succeeded != j.succeeded {
				t.Errorf("%s: job %.12s, %d attempts, %+v", j.name, r.Job, r.Attempts, r.Chunks)
			}
		}
	})
	t.Run("redrive", func(t *testing.T) {
		e := openEarlier(t)
		e.move()
		for _, round := range []string{"record of before", "record of now"} {
			for _, j := range earlierJobs() {
				before := e.record(j.name)
				r := e.report("", append([]string{"redrive", j.id, "--backoff", "1ms", "--retries", "1"}, j.redrive...)...)
				if !strings.HasPrefix(r.Job, j.id) || r.State != j.redriven || r.Chunks.Succeeded != j.succeeded {
					t.Errorf("%s, %s: job %.12s is %s, %+v", round, j.name, r.Job, r.State, r.Chunks)
				}
				e.checkRedriven(before, e.record(j.name))
			}
		}
	})
}

// record returns the spec of the job with a name.
func (e *earlier) record(name string) *journal.Spec {
	e.t.Helper()
	for _, record := range e.records() {
		if record.Spec.Name == name {
			return &record.Spec
		}
	}
	e.t.Fatalf("there is no job %s", name)
	return nil
}

// checkRedriven checks that a redrive changes in the record only the settings that its
// flags change.
func (e *earlier) checkRedriven(before, after *journal.Spec) {
	e.t.Helper()
	if !maps.Equal(before.Meta, after.Meta) || after.Sources == nil || len(after.Command) > 0 {
		e.t.Errorf("%+v became %+v", before, after)
	}
	flags := []string{"Limits.Fuel", "Retry.Retries", "Retry.Backoff"}
	for _, d := range before.Same(after) {
		// The spec does not have the submission's settings of failures.
		if !slices.Contains(flags, d.Field) && !(d.Field == "MaxFailures" && before.Sources == nil) {
			e.t.Errorf("%s: %v", before.Name, &d)
		}
	}
}

// TestEarlierReceipts checks that receipts of an earlier build hold, and are rewritten
// with the same bytes.
func TestEarlierReceipts(t *testing.T) {
	e := openEarlier(t)
	for name, flags := range map[string][]string{
		"squares.receipt.json": {"square.wasm", "chunks.cbor"},
		"lines.receipt.json":   {"command.wasm", "--lines", "lines.txt", "--chunk-lines", "2", "--dir", "data:/d"},
	} {
		for _, store := range [][]string{{"--no-store"}, {"--store", "store"}} {
			out, messages, code := e.command(nil, append(append([]string{"verify", name}, flags...), store...)...)
			if code != exitOK {
				t.Errorf("%s: %d %s%s", name, code, out, messages)
			}
		}
	}
	for _, j := range earlierJobs() {
		if j.name != "squares" && j.name != "lines" {
			continue
		}
		e.report("", append([]string{"run", "--receipt", "again.json"}, j.run...)...)
		if want := e.read(j.name + ".receipt.json"); !bytes.Equal(e.read("again.json"), want) {
			t.Errorf("the receipt of %s is another now", j.name)
		}
	}
}

// withoutBudget returns a bundle, without the fuel of a call that ran out of it.
func withoutBudget(t *testing.T, file []byte) []byte {
	t.Helper()
	b, err := bundle.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.Failure.Class != abi.ClassFuel {
		return file
	}
	b.Failure.Fuel = 0
	if file, err = b.Encode(); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestEarlierBundles checks that bundles of an earlier build fail as before, and are
// rewritten with the same bytes. The exception is the fuel at which the end of a budget
// was noticed.
func TestEarlierBundles(t *testing.T) {
	e := openEarlier(t)
	for name, flags := range map[string][]string{
		"bundles/100.bundle": {"faulty.wasm"},
		"bundles/0.bundle":   {"command.wasm", "--dir", "data:/d"},
		"bundles/1.bundle":   {"command.wasm", "--dir", "data:/d"},
	} {
		out, messages, code := e.command(nil, append([]string{"replay", name, "--module"}, flags...)...)
		if code != exitOK || !strings.Contains(out+messages, "fuel") {
			t.Errorf("%s: %d %s%s", name, code, out, messages)
		}
	}
	e.report("", "run", "faulty.wasm", "work.cbor", "--ids", `0,100,"a"`, "--seed", "7", "--fuel", "100000", "--retries", "0", "--bundle", "again")
	e.report("", "run", "command.wasm", "--lines", "lines.txt", "--arg", "cat", "--arg", "/d/sub/b.txt", "--dir", "data:/d", "--fuel", "100", "--retries", "0", "--bundle", "again")
	for _, name := range []string{"0.bundle", "1.bundle", "100.bundle"} {
		if again, earlier := withoutBudget(t, e.read("again/"+name)), withoutBudget(t, e.read("bundles/"+name)); !bytes.Equal(again, earlier) {
			t.Errorf("%s is another now", name)
		}
	}
}

// TestRedriveOfAnEmbeddersJob checks that the command redrives a job that a
// program has run with the Go API.
func TestRedriveOfAnEmbeddersJob(t *testing.T) {
	e := openEarlier(t)
	embed := func(module, file string, settings runtime.Settings, paths bool) string {
		t.Helper()
		s, err := sqlite.Open(t.Context(), "store", sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		chunks, err := chunks.Open(t.Context(), file, chunks.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer chunks.Close()
		job := &host.Job{About: host.About{Name: "mine", Meta: map[string]string{"k": "v"}}, Module: e.read(module), Chunks: chunks, Settings: settings}
		if paths {
			job.ModulePath, job.ChunksPath = absolute(module), absolute(file)
		}
		res, err := runJob(t, job, host.Config{Store: s, Journal: s})
		if err != nil {
			t.Fatal(err)
		}
		return res.Report.Job
	}
	job := embed("faulty.wasm", "work.cbor", runtime.Settings{Fuel: 100_000, Seed: 1}, true)
	if r := e.report("", "redrive", job, "--fuel", "0"); r.Job != job || r.Chunks.Succeeded != 3 {
		t.Errorf("%+v", r)
	}
	job = embed("context.wasm", "work.cbor", runtime.Settings{Seed: 2, Context: []byte{0x82, 1, 2}}, false)
	for _, tt := range []struct {
		flags []string
		want  string
	}{
		{nil, "unknown module file: give it with --module FILE"},
		{[]string{"--module", "context.wasm"}, "unknown context file: give it with --with-context FILE"},
		{[]string{"--module", "context.wasm", "--with-context", "context.cbor"}, "unknown chunk file: give it with --chunks FILE"},
		{[]string{"--module", "context.wasm", "--with-context", "context.cbor", "--chunks", "chunks.cbor"}, "not the chunks of job"},
	} {
		if _, messages, code := e.command(nil, append([]string{"redrive", "--store", "store", job}, tt.flags...)...); code != exitRefused || !strings.Contains(messages, tt.want) {
			t.Errorf("%q: %d %s", tt.flags, code, messages)
		}
	}
	r := e.report("", "redrive", job, "--module", "context.wasm", "--with-context", "context.cbor", "--chunks", "work.cbor")
	if r.Job != job || r.Chunks.Succeeded != 4 {
		t.Errorf("%+v", r)
	}
	if described, _, _ := e.command(nil, "describe", "--store", "store", job); !strings.Contains(described, "mine") || !strings.Contains(described, "k=v") {
		t.Errorf("describe: %s", described)
	}
}

// TestRedriveOfHostileRecords checks that an invalid record is refused with one line,
// before anything runs.
func TestRedriveOfHostileRecords(t *testing.T) {
	for name, tt := range map[string]struct{ job, edit, want string }{
		"another memory": {"9e08829a4a5f", `json_set(spec, '$.settings.memory', 1)`, "its memory has"},
		"another seed":   {"9e08829a4a5f", `json_set(spec, '$.settings.seed', 5)`, "this is another job"},
		"no memory":      {"9e08829a4a5f", `json_set(spec, '$.settings.memory', 0)`, "Limits.Memory is 0"},
		"all wrong": {"9e08829a4a5f", `json_set(spec, '$.settings.retries', -1, '$.settings.isolation', 'none', '$.module.digest', 'x')`,
			`Module.Digest "x": want sha256: and 64 lower hex digits; Isolation "none": want reset or instance; Retry.Retries -1 is negative`},
		"a text for a number":  {"9e08829a4a5f", `json_set(spec, '$.total', 'x')`, "damaged"},
		"an invalid size":      {"0fa993f7edd8", `json_set(spec, '$.command.flags.split', 'x')`, `split "x"`},
		"flags of two kinds":   {"0fa993f7edd8", `json_set(spec, '$.command.flags.split', '0')`, "SplitLines is set without Split"},
		"no module":            {"9e08829a4a5f", `json_set(json_remove(spec, '$.command'), '$.module.path', '')`, "give it with --module FILE"},
		"sources of no kind":   {"9e08829a4a5f", `json_set(spec, '$.sources', json('{"chunks":{"kind":"xml"}}'))`, "Sources.Chunks.Kind"},
		"no directories":       {"993869bce4d0", `json_set(spec, '$.command.lists', json('{}'))`, "give it with --with-dir HOST:/d"},
		"a directory too many": {"993869bce4d0", `json_set(spec, '$.settings.command.dirs[1]', json('{"guest":"/d","digest":"sha256:"}'))`, `Command.Dirs has the duplicate directory "/d"`},
		"an environment":       {"9e08829a4a5f", `json_set(spec, '$.settings.command', json('{"env":["\nX"],"stdin":"raw"}'))`, `Command.Env "\nX": want KEY=VALUE`},
		"a huge context":       {"0220a91d4b47", `json_set(spec, '$.command.flags.context', '/dev/zero')`, "a context"},
	} {
		t.Run(name, func(t *testing.T) {
			e := openEarlier(t)
			e.move()
			e.edit(tt.edit)
			_, messages, code := e.command(nil, "redrive", "--store", "store", tt.job)
			if code != exitRefused && code != exitStore || !strings.Contains(messages, tt.want) || strings.Count(strings.ReplaceAll(messages, "wasm-jobs: store: ", ""), "wasm-jobs: ") > 2 {
				t.Errorf("%d %s, want %s", code, messages, tt.want)
			}
		})
	}
}
