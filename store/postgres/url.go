package postgres

import (
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// DefaultSchema is the name of the schema unless the URL has another.
const DefaultSchema = "wasm_jobs"

// IsURL reports whether a store's name is a URL of a database.
func IsURL(name string) bool {
	return strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://")
}

// HasPassword reports whether a URL holds a password.
func HasPassword(name string) bool {
	u, err := url.Parse(name)
	if err != nil { // net/url rejects several hosts with ports
		rest := name[strings.Index(name, "//")+2:]
		user, _, has := strings.Cut(rest, "@")
		return has && strings.Contains(user, ":") || strings.Contains(name, "password=")
	}
	_, has := u.User.Password()
	return has || u.Query().Has("password") || u.Query().Has("sslpassword")
}

// Redact returns a URL without its password and parameters, for messages.
func Redact(name string) string {
	scheme, rest, _ := strings.Cut(name, "://")
	rest, _, _ = strings.Cut(rest, "?")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, _, _ := strings.Cut(rest[:at], ":")
		rest = user + rest[at:]
	}
	return scheme + "://" + rest
}

var schemaName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`) })

// connection is a parsed URL.
type connection struct {
	pool   *pgxpool.Config
	schema string
}

// parse parses a URL. It makes no connection.
func parse(name string, o *Options) (*connection, error) {
	if !IsURL(name) {
		return nil, &ConnectionError{Reason: "invalid store URL: want postgres://USER@HOST/DATABASE"}
	}
	if HasPassword(name) && !o.AllowPassword {
		return nil, &ConnectionError{Password: true, Reason: "the store URL has a password, which other users of this machine can see: put it in PGPASSWORD, a pass file or a service file"}
	}
	base, query, _ := strings.Cut(name, "?")
	if isAmbiguous(base) {
		return nil, &ConnectionError{Reason: "invalid store URL: want %40 for an @, and %2F for a /, in a user, a password or a database"}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, &ConnectionError{Reason: "invalid parameters of the store URL: " + quoteless(err)}
	}
	schema := DefaultSchema
	if values.Has("wasm_jobs_schema") {
		schema = values.Get("wasm_jobs_schema")
		values.Del("wasm_jobs_schema")
	}
	if !schemaName().MatchString(schema) || strings.HasPrefix(schema, "pg_") {
		return nil, &ConnectionError{Reason: "invalid wasm_jobs_schema " + strconv.Quote(schema) + ": want lower-case letters, digits and _, not beginning with pg_"}
	}
	if !values.Has("pool_max_conns") {
		values.Set("pool_max_conns", strconv.Itoa(max(2, o.Connections)))
	} else if n, err := strconv.Atoi(values.Get("pool_max_conns")); err != nil || n < 2 {
		return nil, &ConnectionError{Reason: "invalid pool_max_conns " + strconv.Quote(values.Get("pool_max_conns")) + ": want 2 or more; one connection waits for work"}
	}
	if !values.Has("connect_timeout") {
		values.Set("connect_timeout", "5")
	}
	pool, err := pgxpool.ParseConfig(base + "?" + strings.ReplaceAll(values.Encode(), "+", "%20")) // as libpq reads URLs
	if err != nil {
		return nil, &ConnectionError{Reason: "invalid store URL: " + quoteless(err)}
	}
	if err := checkEncryption(&pool.ConnConfig.Config, o.Insecure); err != nil {
		return nil, err
	}
	pool.MaxConnLifetimeJitter = time.Minute
	if _, set := pool.ConnConfig.RuntimeParams["application_name"]; !set {
		pool.ConnConfig.RuntimeParams["application_name"] = "wasm-jobs"
	}
	return &connection{pool, schema}, nil
}

// isAmbiguous reports whether a URL has an @ where a host or a database is read, as if its
// password had an @ or a / that is not encoded: messages would show a part of the password.
func isAmbiguous(base string) bool {
	_, rest, _ := strings.Cut(base, "://")
	authority, path, _ := strings.Cut(rest, "/")
	return strings.Count(authority, "@") > 1 || strings.Contains(path, "@")
}

var quotes = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("`[^`]*`:?|\"[^\"]*\"") })

// quoteless returns the text of an error about a URL without what it quotes, which may be a
// part of a password.
func quoteless(err error) string {
	text := quotes().ReplaceAllString((&quiet{err}).Error(), "")
	return strings.TrimPrefix(strings.Join(strings.Fields(text), " "), "cannot parse ")
}

// checkEncryption rejects unencrypted connections to other machines.
func checkEncryption(c *pgconn.Config, insecure bool) error {
	if insecure {
		return nil
	}
	clear := func(host string, encrypted bool) bool { return !encrypted && !isLocal(host) }
	bad := clear(c.Host, c.TLSConfig != nil)
	for _, f := range c.Fallbacks {
		bad = bad || clear(f.Host, f.TLSConfig != nil)
	}
	if bad {
		return &ConnectionError{Insecure: true, Reason: "the connection to " + strconv.Quote(c.Host) + " may be unencrypted: want sslmode=require or better"}
	}
	return nil
}

// isLocal reports whether a host is this machine.
func isLocal(host string) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || host == "" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
