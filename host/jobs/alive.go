package jobs

import (
	"os"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// silence is how long a run that goes on may give no sign of life; it gives one
// each second.
const silence = 30 * time.Second

// alive tells whether the process of a run without an end is still there. Where
// that is on another machine, the signs of life alone tell.
func alive(run *store.Run, now time.Time) bool {
	if now.Sub(run.Seen) > silence {
		return false
	}
	p := ProcessOf(run)
	host, err := os.Hostname()
	return err != nil || p.Host != host || processExists(p.PID)
}
