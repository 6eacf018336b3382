package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// TestReadSubmission checks how each flag of a submission, in records of earlier
// builds, is read.
func TestReadSubmission(t *testing.T) {
	file := spec.Chunks{Kind: spec.KindFile, Path: "/c"}
	two := 2
	for _, tt := range []struct {
		name, submission string
		want             spec.Spec // Total is 40
	}{
		{"nothing given", `{"module":"/m","chunks":"/c"}`, spec.Spec{Sources: &spec.Sources{Chunks: file}}},
		{"standard input", `{"chunks":"-"}`, spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindFile, Path: "-"}}}},
		{"how chunks are read", `{"chunks":"/c","flags":{"id-key":"key","chunk-format":"array","max-chunk":"1MiB","range":"0-9","ids":"a"}}`,
			spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{
				Kind: spec.KindFile, Path: "/c", IDKey: "key", Format: "array", MaxChunk: 1 << 20, Select: &spec.Selection{Ranges: "0-9", IDs: "a"},
			}}}},
		{"no key of ids", `{"chunks":"/c","flags":{"id-key":""}}`, spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindFile, Path: "/c", NoIDKey: true}}}},
		{"lines", `{"flags":{"lines":"/l"}}`, spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindLines, Path: "/l", Lines: 1}}}},
		{"many lines", `{"flags":{"lines":"/l","chunk-lines":"7"}}`, spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindLines, Path: "/l", Lines: 7}}}},
		{"bytes of lines", `{"flags":{"lines":"-","chunk-bytes":"64KiB","as":"bytes"}}`,
			spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindLines, Path: "-", Bytes: 64 << 10, AsBytes: true}}}},
		{"JSON lines", `{"flags":{"jsonl":"/j"}}`, spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindJSONL, Path: "/j"}}}},
		{"CSV", `{"flags":{"csv":"/t","delimiter":"tab"}}`, spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindCSV, Path: "/t", Delimiter: "\t"}}}},
		{"files", `{"flags":{"files":"/d","split":"8","split-lines":"true"}}`,
			spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindFiles, Path: "/d", Split: 8, SplitLines: true}}}},
		{"a range", `{"flags":{"range-of":"0-9"}}`, spec.Spec{Sources: &spec.Sources{Chunks: spec.Chunks{Kind: spec.KindRange, Range: "0-9"}}}},
		{"context and directories", `{"chunks":"/c","flags":{"context":"/x","max-dir":"1KiB"},"lists":{"dir":["/a:b:/d","C:/e:/e"]}}`,
			spec.Spec{Sources: &spec.Sources{Context: "/x", Dirs: map[string]string{"/d": "/a:b", "/e": "C:/e"}, MaxDir: 1 << 10, Chunks: file}}},
		{"retries", `{"chunks":"/c","flags":{"backoff":"1ms","backoff-max":"2s","retry-deterministic":"true"}}`,
			spec.Spec{Sources: &spec.Sources{Chunks: file}, Settings: spec.Settings{Retry: spec.Retry{Backoff: time.Millisecond, BackoffMax: 2 * time.Second, Deterministic: true}}}},
		{"a share of failures", `{"chunks":"/c","flags":{"max-failures":"5%"}}`, spec.Spec{Sources: &spec.Sources{Chunks: file}, Settings: spec.Settings{MaxFailures: &two}}},
		{"no failures", `{"chunks":"/c","flags":{"fail-fast":"true"}}`, spec.Spec{Sources: &spec.Sources{Chunks: file}, Settings: spec.Settings{MaxFailures: new(int)}}},
	} {
		got := spec.Spec{Module: spec.File{Path: "/m"}, Total: 40, Command: json.RawMessage(tt.submission)}
		if err := readSubmission(&got); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if !reflect.DeepEqual(got.Sources, tt.want.Sources) || !reflect.DeepEqual(got.Settings, tt.want.Settings) || got.Module.Path != "/m" {
			t.Errorf("%s: %+v %+v, want %+v %+v", tt.name, got.Sources, got.Settings, tt.want.Sources, tt.want.Settings)
		}
	}
	for submission, want := range map[string]string{
		`["run"]`:                                    "json: ",
		`{"flags":{"backoff":"soon"}}`:               `backoff "soon": `,
		`{"flags":{"max-chunk":"2PiB"}}`:             `max-chunk "2PiB": too large`,
		`{"flags":{"max-failures":"-1"}}`:            "max-failures",
		`{"flags":{"csv":"","delimiter":"ab"}}`:      "delimiter",
		`{"lists":{"dir":["none"]}}`:                 "dir",
		`{"flags":{"lines":"/l","chunk-lines":"x"}}`: "chunk-lines",
	} {
		err := readSubmission(&spec.Spec{Command: json.RawMessage(submission)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", submission, err, want)
		}
	}
}

// TestSourcesComeBack checks that the sources of a run come back from its record: read
// and recorded again, they are the same.
func TestSourcesComeBack(t *testing.T) {
	for _, want := range []spec.Chunks{
		{Kind: spec.KindFile, Path: "/c"},
		{Kind: spec.KindFile, Path: "/c", Format: "array", IDKey: "key", MaxChunk: 10, Select: &spec.Selection{Ranges: "0-9", IDs: "a"}},
		{Kind: spec.KindFile, Path: "-", NoIDKey: true},
		{Kind: spec.KindLines, Path: "/l", Lines: 7},
		{Kind: spec.KindLines, Path: "-", Bytes: 64, AsBytes: true, NoIDKey: true},
		{Kind: spec.KindJSONL, Path: "/j", IDKey: "key"},
		{Kind: spec.KindCSV, Path: "/t", Delimiter: "\t"},
		{Kind: spec.KindFiles, Path: "/d", Split: 8, SplitLines: true},
		{Kind: spec.KindRange, Range: "0-9", Select: &spec.Selection{Ranges: "3"}},
	} {
		var o runOptions
		if err := o.readChunks(&want); err != nil {
			t.Error(err)
		}
		if got := o.chunkSources(); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v became %+v", want, got)
		}
	}
}
