package progress

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/wasm-jobs/wasm-jobs/host"
)

const (
	// allFailed is the number of failed chunks, without any other, after which people
	// are told how to stop.
	allFailed = 100
	// manyLines is the number of executed chunks from which their cost is worth a hint,
	// moreLines the lines of a chunk that it proposes, and gain the least speed-up.
	manyLines = 10_000
	moreLines = 1000
	gain      = 2
	// largeModule is the size in bytes of a module from which compiling takes so long,
	// half a second and more, that people wonder.
	largeModule = 1 << 20
)

// Compiling tells that the compiler starts on a module of some bytes. kept says that the
// code is kept for later runs.
func (d *Display) Compiling(size int, kept bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mode == "none" || size < largeModule {
		return
	}
	once := ""
	if kept {
		once = ", once"
	}
	d.line("compiling %s%s", humanize.IBytes(uint64(size)), once)
}

// hopeless tells once that no chunk has succeeded. The caller holds mu.
func (d *Display) hopeless(c host.Counts) {
	if d.mode == "none" || d.warned || c.Succeeded > 0 || c.Failed < allFailed || c.Failed == c.Total {
		return
	}
	d.warned = true
	d.line("hint: the first %d chunks all failed: Ctrl-C stops the job, and --max-failures N does it next time", c.Failed)
}

// costly tells that the chunks of a finished job were so small that most of the time
// went by around them. It is "" unless larger ones would help.
func costly(r *host.Report) string {
	n := r.Attempts
	if r.Profile == nil || n < manyLines || r.Chunks.Failed > 0 {
		return ""
	}
	s := r.Profile.Seconds
	each := func(seconds float64) float64 { return seconds / float64(n) }
	inside, around := each(s.Guest), each(s.Reset+s.Host+s.Store)
	faster := (inside + around) / (inside + around/moreLines)
	if faster < gain {
		return ""
	}
	micro := func(seconds float64) string {
		return fmt.Sprintf("%.2g us", float64(time.Duration(seconds*float64(time.Second)))/float64(time.Microsecond))
	}
	return fmt.Sprintf("hint: a chunk takes %s and costs %s around it: --chunk-lines %d would be about %.0f times faster, if the module reads several lines",
		micro(inside), micro(around), moreLines, faster)
}
