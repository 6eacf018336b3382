package spec

import (
	"encoding/json"
	"time"
)

// Values for records without these fields: they were written before there was a
// choice, or before it was recorded.
const (
	defaultBackoff    = 50 * time.Millisecond
	defaultBackoffMax = 5 * time.Second
	firstMetering     = 1
)

// Parse reads the JSON of a [Spec]. It accepts earlier versions, in which
// fields are missing, and ignores unknown fields. It does not check values: see
// [Spec.Validate].
func Parse(b []byte) (*Spec, error) {
	j := &Spec{}
	j.Settings.Backoff, j.Settings.BackoffMax = defaultBackoff, defaultBackoffMax
	if err := json.Unmarshal(b, j); err != nil {
		return nil, err
	}
	if s := &j.Settings; s.Metering == 0 && !s.NoMetering {
		s.Metering = firstMetering
	}
	return j, nil
}
