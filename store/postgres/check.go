package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// CheckReport counts the findings of [Store.Check].
type CheckReport struct {
	Outputs int `json:"outputs"` // that are sound
	Damaged int `json:"damaged"` // outputs of packs that were dropped
	Jobs    int `json:"jobs"`
}

// Check reads every pack, and drops packs that do not match their checksums.
func (s *Store) Check(ctx context.Context) (r CheckReport, err error) {
	if err := s.one(ctx, "select count(*) from $.jobs", nil, &r.Jobs); err != nil {
		return r, err
	}
	for last := int64(0); ; {
		type pack struct {
			fetched
			count int
		}
		some, err := rows(ctx, s, "select "+packColumns+", count from $.packs where id > $1 order by id limit 16", func(r pgx.Rows) (p pack, err error) {
			err = r.Scan(append(p.columns(), &p.count)...)
			return p, err
		}, last)
		if err != nil || len(some) == 0 {
			return r, err
		}
		for _, p := range some {
			last = p.id
			if records, err := p.read(); err == nil {
				r.Outputs += len(records)
				continue
			}
			var dropped bool
			if err := s.one(ctx, "select $.drop_damaged($1)", []any{p.id}, &dropped); err != nil {
				return r, err
			}
			r.Damaged += p.count
			if s.options.Damaged != nil {
				s.options.Damaged(Damage{Pack: p.id, Count: p.count})
			}
		}
	}
}
