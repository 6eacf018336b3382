package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

func migrateCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "migrate", Usage: "make the schema of a shared store, or upgrade it to this program's version",
		UsageText: "wasm-jobs migrate --store URL [--roles]\n       wasm-jobs migrate --print [--roles]\n\nExample: wasm-jobs migrate --store postgres://admin@db/jobs --roles",
		Flags: sharedFlags(
			&cli.BoolFlag{Name: "print", Usage: "write the SQL to stdout instead, and connect to nothing"},
			&cli.BoolFlag{Name: "roles", Usage: "also make the roles wasm_jobs_admin, _submit, _worker and _read"},
		),
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			return migrate(ctx, c)
		},
	}
}

func migrate(ctx *cli.Context, c *console) error {
	if ctx.Bool("print") {
		name, err := storeDir(ctx)
		if err != nil {
			return err
		}
		schema := postgres.DefaultSchema
		if _, query, ok := strings.Cut(name, "?"); ok && postgres.IsURL(name) {
			if values, err := url.ParseQuery(query); err == nil && values.Has("wasm_jobs_schema") {
				schema = values.Get("wasm_jobs_schema")
			}
		}
		_, err = io.WriteString(c.out, postgres.Schema(schema, ctx.Bool("roles")))
		return outputError(err)
	}
	name, err := sharedStore(ctx)
	if err != nil {
		return err
	}
	o := postgres.Options{Insecure: ctx.Bool("insecure"), AllowPassword: allowsPassword(name)}
	version, err := postgres.Migrate(ctx.Context, name, o, ctx.Bool("roles"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "schema %d\n", version)
	return outputError(err)
}
