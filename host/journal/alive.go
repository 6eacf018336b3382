package journal

import (
	"os"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// silence is the time without a sign of life after which a run counts as ended; it
// gives one each second.
const silence = 30 * time.Second

// Alive reports whether the process of a run without an end still exists.
func Alive(run *store.Run, now time.Time) bool { return run.Ended.IsZero() && alive(run, now) }

// alive reports whether the process of a run without an end still exists. If it ran
// on another machine, only its signs of life count.
func alive(run *store.Run, now time.Time) bool {
	if now.Sub(run.Seen) > silence {
		return false
	}
	p := ProcessOf(run)
	host, err := os.Hostname()
	return err != nil || p.Host != host || processExists(p.PID)
}
