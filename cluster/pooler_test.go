package cluster_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestPooler runs jobs through pgbouncer in transaction mode, which has three connections
// for the workers, the submitter and the reader together.
func TestPooler(t *testing.T) {
	server := pgtest.Shared(t)
	direct := server.Database(t)
	database, _, _ := strings.Cut(strings.TrimPrefix(direct, "postgres://postgres@/"), "?")
	url := server.Pooler(t, 3)(database)
	s := openStore(t, url)
	start(t, url, 4, nil)
	start(t, url, 4, nil)
	for name, j := range map[string]func() result{
		"many chunks": func() result {
			j := newJob(t, square, 5000)
			got, _ := collect(t, s, submit(t, s, j))
			equal(t, got, local(t, j))
			return got
		},
		"failing chunks": func() result {
			j := jobOver(t, faulty, kinds())
			got, _ := collect(t, s, submit(t, s, j))
			equal(t, got, local(t, j))
			return got
		},
		"merge of floats": func() result {
			j := newJob(t, "testdata/wasm/groups.wasm", 25_000)
			got, _ := collect(t, s, submit(t, s, j))
			equal(t, got, local(t, j))
			return got
		},
	} {
		if got := j(); len(got.outputs) == 0 {
			t.Errorf("%s: no outputs", name)
		}
	}
}

// TestConnections runs 16 slots over two connections, and over the default number: a
// process never has more than five.
func TestConnections(t *testing.T) {
	url := pgtest.URL(t)
	s := openStore(t, url)
	watch, err := pgx.Connect(t.Context(), strings.Split(url, "&wasm_jobs_schema")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close(t.Context())
	for name, test := range map[string]struct {
		url  string
		most int
	}{
		"two":     {url + "&application_name=two&pool_max_conns=2", 2},
		"default": {url + "&application_name=default", 5},
	} {
		t.Run(name, func(t *testing.T) {
			j := jobOver(t, faulty, working(200, 20_000))
			j.Settings.Seed = uint64(test.most) // another job each time
			want := local(t, j)
			stop := start(t, test.url, 16, func(c *cluster.Config) { c.Name = name })
			id := submit(t, s, j)
			most := 0
			until(t, s, id, "over", func(p *postgres.Progress) bool {
				n := 0
				if err := watch.QueryRow(t.Context(), "select count(*) from pg_stat_activity where application_name = $1", name).Scan(&n); err != nil {
					t.Fatal(err)
				}
				most = max(most, n)
				return cluster.Ended(p.State)
			})
			got, _ := collect(t, s, id)
			equal(t, got, want)
			if err := stop(); err != nil {
				t.Error(err)
			}
			if most == 0 || most > test.most {
				t.Errorf("%d connections, want at most %d", most, test.most)
			}
		})
	}
}
