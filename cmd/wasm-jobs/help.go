package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/help"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/terminal"
)

// category is a group of verbs or flags in help, in order.
type category struct {
	title string
	names []string
}

// verbCategories are the groups of verbs.
var verbCategories = []category{
	{"Run functions", []string{"run", "serve", "pipe", "flow"}},
	{"Prepare inputs", []string{"chunks", "inspect"}},
	{"Look at jobs", []string{"list", "status", "info", "describe", "output", "report", "ui", "top"}},
	{"Manage jobs", []string{"redrive", "wait", "cancel", "delete", "prune", "fsck"}},
	{"Write guests", []string{"new", "doctor", "dev", "test", "check", "bench", "replay"}},
	{"Prove results", []string{"verify", "prove", "verify-proof", "diff", "sign", "verify-signature", "keygen"}},
	{"Use many machines", []string{"worker", "workers", "submit", "pause", "resume", "set", "migrate"}},
	{"Set up", []string{"completion", "version"}},
}

// flagCategories are the groups of flags.
var flagCategories = []category{
	{"Input", []string{"lines", "jsonl", "csv", "files", "parquet", "arrow", "range-of", "limit", "range", "ids", "chunk-lines", "chunk-bytes", "chunk-rows",
		"as", "delimiter", "quote", "csv-types", "select", "skip-bad", "split", "split-lines", "id-key", "chunk-format", "max-chunk"}},
	{"Result", []string{"output", "outputs", "format", "concat", "partial", "dead-letter", "bundle", "report", "receipt", "events"}},
	{"Server", []string{"listen", "queue", "max-wait", "max-body", "rate", "drain", "tls-cert", "tls-key", "token-env", "debug", "window", "order"}},
	{"Execution", []string{"workers", "timeout", "fold-timeout", "retries", "retry-on", "retry-deterministic", "backoff", "backoff-max", "max-requeues",
		"max-failures", "fail-fast", "grace", "engine", "isolation", "no-metering", "verify", "verify-engine"}},
	{"Settings of the function", []string{"context", "seed", "fuel", "memory", "stack", "max-output", "max-aggregate", "native-nans"}},
	{"WASI commands", []string{"arg", "env", "stdin", "dir", "max-dir"}},
	{"Store", []string{"store", "no-store", "rerun", "name", "meta", "on", "store-strict", "durable", "insecure", "shared", "priority", "max-concurrency", "max-upload"}},
	{"Terminal", []string{"progress", "log-level", "json", "metrics", "trace-otlp"}},
}

// everyday are the flags that --help shows if a verb has more than fitting of them, with
// a text of one line, or "" for the usual text. --help-all shows all.
var everyday = map[string]string{
	"lines": "each line of FILE is a chunk (- = stdin)", "jsonl": "each JSON value, one a line, is a chunk",
	"csv": "each record is a chunk, a map", "files": "each file is a chunk: name, size and bytes",
	"range-of": "each integer, such as 0-999, is a chunk", "limit": "take only the first N chunks", "chunk-lines": "",
	"output": "write the result as CBOR (- = stdout)", "outputs": "write every output: CBOR, .jsonl or .csv",
	"format": "format of the result on stdout", "partial": "", "dead-letter": "write the failed chunks, a chunk file",
	"report": "write a report", "receipt": "write the receipt, if all chunks succeeded",
	"workers": "", "timeout": "", "retries": "", "max-failures": "stop once more chunks have failed",
	"context": "one CBOR item for the module's setup", "memory": "",
	"store": "keep outputs in DIR, and reuse them", "no-store": "keep outputs in memory only",
	"listen": "", "queue": "", "max-wait": "", "drain": "", "token-env": "", "order": "", "window": "",
	"priority": "", "json": "", "allow": "", "stop-at": "", "set": "", "effects": "", "replay-effects": "",
	"sample": "", "chunks": "", "module": "", "class": "",
	"range": "run only the integer ids in RANGES, such as 0-99", "ids": "run only the chunks with IDS, such as a,b,7",
}

// notEveryday are flags of everyday that a verb does not show, so that its page fits on
// one screen.
var notEveryday = map[string][]string{"run": {"chunk-lines"}}

// fitting is how many flags --help shows in full.
const fitting = 20

// grouped is how many flags are shown as one list.
const grouped = 12

// placeholders are the values of flags whose text does not mark one. Values with | are
// all that the flag takes; completion offers them.
var placeholders = map[string]string{
	"format": "json|diag|cbor", "chunk-format": "auto|sequence|array", "isolation": "reset|instance", "verify-engine": "compiler|interpreter",
	"engine": "auto|compiler|interpreter", "progress": "auto|plain|none", "log-level": "off|debug|info|warn|error", "stdin": "raw|cbor", "as": "text|bytes",
	"quote": "double|none", "data": "entry|last", "order": "input|completion", "on-changed": "refuse|rerun", "allow": "http,command", "example": "EXAMPLE", "id-key": "KEY", "name": "NAME", "app": "NAME",
	"priority": "PRIORITY", "max-body": "SIZE", "max-upload": "SIZE", "rate": "RATE", "verify": "P%",
}

// verbPlaceholders are those of flags that one verb gives another meaning.
var verbPlaceholders = map[string]map[string]string{
	"cat":    {"format": "json|diag|csv|cbor|raw"},
	"graph":  {"format": "mermaid|dot|json"},
	"verify": {"engine": "compiler|interpreter"},
	"replay": {"engine": "compiler|interpreter"},
}

// flagText is a flag as help shows it.
type flagText struct {
	names       []string // the long one first
	placeholder string   // "" for a boolean flag
	text        string   // without the default
	value       string   // the default; may be empty
}

func describeFlag(command *cli.Command, flag cli.Flag) flagText {
	d := flagText{names: flag.Names()}
	usage := ""
	if documented, ok := flag.(cli.DocGenerationFlag); ok {
		usage = documented.GetUsage()
	}
	before, rest, _ := strings.Cut(usage, "`")
	marked, after, isMarked := strings.Cut(rest, "`")
	d.text = usage
	if isMarked {
		d.text, d.placeholder = before+marked+after, marked
	}
	kind := ""
	d.value, kind = defaultOf(flag)
	switch {
	case kind == "":
		d.placeholder = ""
	case isMarked:
	case verbPlaceholders[command.Name][d.names[0]] != "":
		d.placeholder = verbPlaceholders[command.Name][d.names[0]]
	case placeholders[d.names[0]] != "":
		d.placeholder = placeholders[d.names[0]]
	default:
		d.placeholder = kind
	}
	return d
}

// defaultOf returns the default of a flag as text, and a word for its values, which is
// "" for a boolean flag.
func defaultOf(flag cli.Flag) (value, kind string) {
	text := ""
	switch f := flag.(type) {
	case *cli.BoolFlag:
		return "", ""
	case *cli.StringFlag:
		value, kind, text = f.Value, "TEXT", f.DefaultText
		if strings.HasSuffix(f.Value, "iB") {
			kind = "SIZE"
		}
	case *cli.StringSliceFlag:
		kind, text = "TEXT", f.DefaultText
	case *cli.IntFlag:
		value, kind, text = number(int64(f.Value)), "N", f.DefaultText
	case *cli.Uint64Flag:
		value, kind, text = number(int64(f.Value)), "N", f.DefaultText
	case *cli.Float64Flag:
		value, kind, text = strconv.FormatFloat(f.Value, 'g', -1, 64), "NUMBER", f.DefaultText
	case *cli.DurationFlag:
		value, kind, text = shortDuration(f.Value), "TIME", f.DefaultText
	default:
		kind = "TEXT"
	}
	if text != "" {
		value = text
	}
	return value, kind
}

// number returns a default; 0 is not worth a word.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// shortDuration is d without units that are 0, such as 10m, or "" for 0.
func shortDuration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// entry returns the flag for help. In short, it has only the first clause of its text.
func (d *flagText) entry(short bool) help.Entry {
	term := ""
	for _, name := range slices.Backward(d.names) {
		if term != "" {
			term += ", "
		}
		term += dashes(name)
	}
	if len(d.names[len(d.names)-1]) > 1 {
		term = "    " + term // below those with a short name
	}
	if d.placeholder != "" {
		term += " " + d.placeholder
	}
	text := d.text
	if short {
		text, _, _ = strings.Cut(text, "; ")
		text = cmp.Or(everyday[d.names[0]], text)
	}
	if d.value != "" {
		text += " (default: " + d.value + ")"
	}
	return help.Entry{Term: term, Text: text}
}

// dashes returns the name of a flag as it is typed.
func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// pageOf returns the page of a verb. words are the program and the names of the verb. all says
// that the page has all flags and the exit codes, also if they are many.
func pageOf(words []string, command *cli.Command, all bool) *help.Page {
	name := strings.Join(words, " ")
	p := &help.Page{Name: name, Summary: command.Usage, Text: command.UsageText}
	if p.Text == "" {
		p.Text = strings.TrimSpace(name + " [flags] " + command.ArgsUsage)
	}
	p.Groups = verbGroups(command.Subcommands, []category{{"Commands", nil}})
	flags := visibleFlags(command)
	if short := everydayOf(command, flags); !all && len(flags) > fitting && len(short) > 0 {
		p.Text = withoutParagraphs(p.Text)
		p.Groups = append(p.Groups, flagGroups(command, short, true)...)
		p.More = fmt.Sprintf("%s --help-all has all %d flags, and says more.", name, len(flags))
		return p
	}
	p.Groups = append(p.Groups, flagGroups(command, flags, false)...)
	if len(command.Subcommands) > 0 {
		p.More = name + " COMMAND --help has the flags of a command."
	}
	return p
}

func visibleFlags(command *cli.Command) (flags []cli.Flag) {
	for _, flag := range command.Flags {
		if visible, ok := flag.(cli.VisibleFlag); !ok || visible.IsVisible() {
			flags = append(flags, flag)
		}
	}
	return flags
}

// everydayOf returns the flags that --help shows, in the order of their categories.
func everydayOf(command *cli.Command, flags []cli.Flag) (short []cli.Flag) {
	sorted, rest := categorize(flags, flagCategories, nameOf)
	for _, flag := range slices.Concat(append(sorted, rest)...) {
		if _, ok := everyday[nameOf(flag)]; ok && !slices.Contains(notEveryday[command.Name], nameOf(flag)) {
			short = append(short, flag)
		}
	}
	return short
}

// withoutParagraphs returns the forms, the examples and the exit codes of a text.
func withoutParagraphs(text string) string {
	blocks := strings.Split(text, "\n\n")
	kept := blocks[:1]
	for _, block := range blocks[1:] {
		if strings.HasPrefix(block, "Example: ") || strings.HasPrefix(block, "Exit codes:\n") {
			kept = append(kept, block)
		}
	}
	return strings.Join(kept, "\n\n")
}

// flagGroups returns the flags in groups: one, if they are few.
func flagGroups(command *cli.Command, flags []cli.Flag, short bool) (groups []help.Group) {
	entries := func(flags []cli.Flag) (entries []help.Entry) {
		for _, flag := range flags {
			d := describeFlag(command, flag)
			entries = append(entries, d.entry(short))
		}
		return entries
	}
	if len(flags) == 0 {
		return nil
	}
	if short || len(flags) <= grouped {
		return []help.Group{{Title: "Flags", Entries: entries(flags)}}
	}
	byTitle, rest := categorize(flags, flagCategories, nameOf)
	for i, c := range flagCategories {
		if len(byTitle[i]) > 0 {
			groups = append(groups, help.Group{Title: c.title, Entries: entries(byTitle[i])})
		}
	}
	if len(rest) > 0 {
		// First, because they are those that only this verb has.
		groups = append([]help.Group{{Title: "Flags of " + command.Name, Entries: entries(rest)}}, groups...)
	}
	return groups
}

// categorize sorts things into categories, in the order of the names there. rest has
// those that no category names.
func categorize[T any](things []T, categories []category, name func(T) string) (sorted [][]T, rest []T) {
	sorted = make([][]T, len(categories))
	found := map[string]bool{}
	for i, c := range categories {
		for _, wanted := range c.names {
			at := slices.IndexFunc(things, func(t T) bool { return name(t) == wanted })
			if at >= 0 && !found[wanted] {
				found[wanted] = true
				sorted[i] = append(sorted[i], things[at])
			}
		}
	}
	for _, t := range things {
		if !found[name(t)] {
			rest = append(rest, t)
		}
	}
	return sorted, rest
}

// verbGroups returns verbs in groups; those without a category come last.
func verbGroups(commands []*cli.Command, categories []category) (groups []help.Group) {
	sorted, rest := categorize(commands, categories, func(c *cli.Command) string { return c.Name })
	sorted[len(sorted)-1] = append(sorted[len(sorted)-1], rest...)
	for i, c := range categories {
		g := help.Group{Title: c.title}
		for _, command := range sorted[i] {
			g.Entries = append(g.Entries, help.Entry{Term: command.Name, Text: command.Usage})
		}
		if len(g.Entries) > 0 {
			groups = append(groups, g)
		}
	}
	return groups
}

// appPage returns the page of the command as a whole.
func appPage(app *cli.App) *help.Page {
	return &help.Page{
		Name: app.Name, Summary: app.Usage,
		Text: "wasm-jobs COMMAND [flags] [arguments]\n\nExample: " + app.UsageText + "\n         wasm-jobs new primes --lang go\n\n" + app.Description,
		Groups: append(verbGroups(app.Commands, verbCategories), help.Group{Title: "Flags", Entries: []help.Entry{
			{Term: "-h, --help", Text: "print this page; after a command, the page of the command"},
			{Term: "    --help-all", Text: "after a command: print all of its flags, also if they are many"},
			{Term: "-v, --version", Text: "print the version"},
		}}),
		More: "A flag with a default takes it from the environment variable WASM_JOBS_ and its name, if that is set: WASM_JOBS_WORKERS=2 for --workers. A flag on the command line wins.",
	}
}

// helpRequest is the error of a command line that asks for help.
type helpRequest struct {
	words   []string // the program, and the names of the verb
	command *cli.Command
	all     bool
}

func (*helpRequest) Error() string { return "help is asked for" }

// print prints the page.
func (r *helpRequest) print(app *cli.App, out io.Writer) error {
	width := terminal.Width(out)
	if width == 0 {
		width = terminal.DefaultWidth
	}
	if r.command == nil {
		return outputError(appPage(app).Write(out, width))
	}
	return outputError(pageOf(r.words, r.command, r.all).Write(out, width))
}
