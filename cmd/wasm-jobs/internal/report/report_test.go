package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/profile"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// forms returns a document in all three forms.
func forms(t *testing.T, d *Document) (page, text string, data []byte) {
	t.Helper()
	var p, plain bytes.Buffer
	if err := d.WritePage(&p); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteText(&plain, strconv.Quote); err != nil {
		t.Fatal(err)
	}
	data, err := d.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return p.String(), plain.String(), data
}

// sample returns the document of a job with everything in it.
func sample() *Document {
	r := profile.NewRecorder(time.Unix(0, 0))
	for i := range 3000 {
		calls := profile.Calls{Count: 1, Took: time.Duration(i*i) * time.Microsecond, Memory: uint64(1+i%7) << 16}
		r.Batch(&profile.Batch{Worker: i % 3, Len: 1, Calls: 1, Runs: 1,
			Alike: func(int) profile.Alike { return profile.Alike{Count: 1, Fuel: uint64(i * 1000), Size: i} },
			Fuel:  func(int) uint64 { return uint64(i * 1000) }, Size: func(int) int { return i },
			ID: func(int) abi.ID { return abi.IntID(uint64(i)) }, Call: func(int) profile.Calls { return calls }})
		r.Finished(time.Unix(int64(i), 0), 1, calls.Took)
	}
	r.Lease(1, profile.Lease{Total: 3000 * time.Second, Store: time.Second})
	d := &Document{Report: &host.Report{State: "failed", Job: strings.Repeat("ab", 32)}, Name: "sample", Spec: &spec.Settings{Seed: 7}, Command: "wasm-jobs run x.wasm y.cbor"}
	d.Chunks = host.Counts{Total: 12345, Succeeded: 12000, Reused: 9000, Failed: 345}
	d.Attempts, d.Retries, d.Fuel, d.Workers = 4000, 99, 1<<60, 3
	d.Instances.Created, d.Instances.Memory = 4, 7<<16
	d.Phases = host.Phases{Scan: 0.5, Compile: 1.25, Prepare: 0.001, Execute: 3000, Fold: 2}
	d.Profile = r.Profile(3, 3000*time.Second, time.Second, profile.Sampled{Reset: time.Microsecond})
	d.Alone = func(id abi.ID) string { return "wasm-jobs run x.wasm y.cbor --ids " + id.String() }
	var g Grouping
	for i := range 345 {
		g.Add(abi.IntID(uint64(2*i)), &abi.Failure{Class: abi.ClassTrap, Message: fmt.Sprint("panic ", i%3), Stack: []string{"main.f"}, Logs: []string{"last line"}})
	}
	d.Groups = g.Groups(nil)
	d.Explain()
	return d
}

var dataElement = regexp.MustCompile(`<data value="([^"]*)" data-at="([^"]*)">([^<]*)</data>`)

// at returns the value in a JSON document at keys and indexes that dots join.
func at(t *testing.T, data []byte, path string) string {
	t.Helper()
	for key := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		var array []json.RawMessage
		if i, err := strconv.Atoi(key); err == nil && json.Unmarshal(data, &array) == nil && i < len(array) {
			data = array[i]
		} else if json.Unmarshal(data, &object) == nil && object[key] != nil {
			data = object[key]
		} else {
			t.Fatalf("the JSON has nothing at %s", path)
		}
	}
	return string(bytes.TrimSpace(data))
}

// TestFormsHaveTheSameNumbers compares every number of the page with the JSON, and its
// text with the text form.
func TestFormsHaveTheSameNumbers(t *testing.T) {
	page, text, data := forms(t, sample())
	found := dataElement.FindAllStringSubmatch(page, -1)
	if len(found) < 200 {
		t.Fatalf("the page has only %d numbers", len(found))
	}
	for _, m := range found {
		value, path, shown := html.UnescapeString(m[1]), m[2], html.UnescapeString(m[3])
		if want := at(t, data, path); value != want {
			t.Errorf("%s: the page has %s, the JSON has %s", path, value, want)
		}
		if !strings.Contains(text, strings.Trim(strconv.Quote(shown), `"`)) {
			t.Errorf("%s: the text lacks %s", path, shown)
		}
	}
	if strings.Count(page, "<data") != len(found) {
		t.Error("the page has a number in another form")
	}
}

// TestPageStandsAlone checks that nothing in a page makes a request or runs.
func TestPageStandsAlone(t *testing.T) {
	page, _, _ := forms(t, sample())
	for _, bad := range []string{"<script", "src=", "@import", "url(", "http:", "https:", " on"} {
		for rest := page; ; {
			i := strings.Index(rest, bad)
			if i < 0 {
				break
			}
			if line := rest[i:min(i+40, len(rest))]; bad != " on" || regexp.MustCompile(`^ on[a-z]+=`).MatchString(line) {
				t.Errorf("the page has %q", line)
			}
			rest = rest[i+len(bad):]
		}
	}
}

// hostile returns a text that is not harmless in HTML, in a terminal or in JSON, of at
// least n bytes.
func hostile(n int) string {
	return strings.Repeat("\"<script>alert('x')</script>&\x1b[31m\u202e\x00\xff", n/40+1)
}

// TestHostileTexts checks that what guests write stays text, and that a page with as
// much of it as possible is below 1 MiB.
func TestHostileTexts(t *testing.T) {
	d := sample()
	bad := hostile(64 << 10)
	d.Name, d.Error, d.Host, d.Command, d.Module.Path = bad, bad, bad, bad, bad
	d.Spec.Isolation = bad
	d.Alone = func(abi.ID) string { return strings.Repeat(`"`, maxMessage) }
	d.Profile.Slowest = nil
	for i := range 50 {
		d.Profile.Slowest = append(d.Profile.Slowest, profile.Slow{ID: abi.TextID(fmt.Sprint(i) + strings.ToValidUTF8(bad, "")), Duration: math.MaxInt64, Size: math.MaxInt})
	}
	var g Grouping
	for i := range 200 {
		frames := make([]string, 100)
		for k := range frames {
			frames[k] = fmt.Sprint(strings.Repeat(`"`, 1000), i)
		}
		g.Add(abi.TextID(fmt.Sprint(i, `"<`)), &abi.Failure{Class: abi.ClassTrap, Message: fmt.Sprint(i) + strings.Repeat(`"`, 5000), Stack: frames[:1+i%100], Logs: frames})
	}
	d.Groups = g.Groups(func(abi.ID) string { return "x.bundle" })
	page, text, _ := forms(t, d)
	if len(page) > 1<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
	if strings.Contains(page, "<script") || strings.Contains(text, "\x1b") || strings.Contains(text, "\u202e") {
		t.Error("a text of a guest is not escaped")
	}
	if !strings.Contains(page, "&lt;script&gt;") {
		t.Error("a text of a guest is missing")
	}
}

func TestGroups(t *testing.T) {
	var none Grouping
	if got := none.Groups(nil); got.List == nil || len(got.List) != 0 || got.Other != 0 {
		t.Errorf("without failures: got %+v", got)
	}
	var g Grouping
	for i := range 3 * maxKinds {
		g.Add(abi.IntID(uint64(i)), &abi.Failure{Class: abi.ClassGuest, Message: fmt.Sprint(i / 2)})
	}
	got := g.Groups(nil)
	sum := got.Other
	for _, x := range got.List {
		sum += x.Count
	}
	if len(got.List) != maxGroups || sum != 3*maxKinds || got.List[0].IDs != "0-1" {
		t.Errorf("%d groups have %d chunks, the first %s; want %d with %d, and 0-1", len(got.List), sum, got.List[0].IDs, maxGroups, 3*maxKinds)
	}
}

// TestReportWithoutProfile is about jobs whose outputs were all stored, and those of
// earlier versions.
func TestReportWithoutProfile(t *testing.T) {
	d := &Document{Report: &host.Report{State: "succeeded"}}
	d.Explain()
	page, text, _ := forms(t, d)
	for _, s := range []string{page, text} {
		if !strings.Contains(s, "Phases") || strings.Contains(s, "Distributions") {
			t.Errorf("got %s", s)
		}
	}
	d.Profile = &profile.Profile{Workers: 1}
	forms(t, d)
}

// FuzzPage checks that a page has no element that a text of a guest brought.
func FuzzPage(f *testing.F) {
	f.Add("<script>", "a\x1b[0m")
	f.Fuzz(func(t *testing.T, message, name string) {
		d := &Document{Report: &host.Report{State: "failed"}, Name: name}
		clean := &Document{Report: &host.Report{State: "failed"}, Name: "x"}
		for doc, words := range map[*Document]string{d: message, clean: "x"} {
			var g Grouping
			g.Add(abi.IntID(1), &abi.Failure{Class: abi.ClassTrap, Message: words, Stack: []string{words}, Logs: []string{words}})
			doc.Groups = g.Groups(nil)
		}
		page, text, _ := forms(t, d)
		other, _, _ := forms(t, clean)
		if strings.Count(page, "<") != strings.Count(other, "<") || strings.Count(page, ">") != strings.Count(other, ">") {
			t.Errorf("%q and %q bring elements", message, name)
		}
		if strings.ContainsRune(text, 0x1b) {
			t.Errorf("%q brings a control character", message)
		}
	})
}
