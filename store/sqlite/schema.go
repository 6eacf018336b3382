package sqlite

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// schema is the layout of this version. The table packs holds the outputs in id
// order (see type pack); the view outputs shows them one by one to users.
//
// The table batches has a row for each commit, and batch_pages its entries: for
// each output the first bytes of its chunk's digest, and its order. See type batch.
const schema = actionSchema + packSchema + batchSchema

const actionSchema = `
create table actions(
	id integer primary key autoincrement,
	digest blob not null unique);
`

const packSchema = `
create table packs(
	id integer primary key,
	action integer not null, ord blob not null, chunk blob not null,
	places text not null, body blob not null,
	unique(action, ord, chunk));
create view outputs as select packs.action as action,
	substr(body, p.value->>0 + 1, p.value->>1) as ord,
	substr(body, p.value->>0 + p.value->>1 + 1, 32) as chunk,
	substr(body, p.value->>0 + p.value->>1 + 33, 16) as checksum,
	p.value->>3 as fuel,
	substr(body, p.value->>0 + p.value->>1 + 49, p.value->>2) as output
	from packs, json_each(places) as p;
`

const batchSchema = `
create table batches(
	action integer not null, seq integer not null,
	count integer not null, size integer not null, first integer not null, pages integer not null, entries blob not null,
	primary key(action, seq)) without rowid;
create table batch_pages(
	id integer primary key, entries blob not null);
`

// The schemas of older versions. Up to version 3, each commit appended its entries
// to a log, which was moved into an index when it was long.
const (
	logSchemaV3 = `
create table actions(
	id integer primary key autoincrement,
	digest blob not null unique,
	indexed integer not null default 0);
create table batches(
	action integer not null, seq integer not null,
	count integer not null, entries blob not null,
	primary key(action, seq)) without rowid;
create table chunks(
	action integer not null, prefix integer not null, ord blob not null,
	primary key(action, prefix, ord)) without rowid;
`
	outputSchemaV2 = `
create table outputs(
	action integer not null, ord blob not null, chunk blob not null,
	checksum blob not null, fuel integer not null, output blob not null,
	primary key(action, ord, chunk)) without rowid;
`
	outputSchemaV1 = `
create table outputs(
	action integer not null, ord blob not null, chunk blob not null,
	checksum blob not null, output blob not null,
	primary key(action, ord, chunk)) without rowid;
`
)

// schemas are the schemas of the versions 1, 2, ...
var schemas = [Version]string{
	outputSchemaV1 + logSchemaV3, outputSchemaV2 + logSchemaV3 + jobSchema, packSchema + logSchemaV3 + jobSchema, schema + jobSchema,
}

// checkSchema makes sure that a file has exactly the schema of a version: foreign
// views and triggers would run as part of our queries. It compares the text, before
// any table is queried.
func (c *conn) checkSchema(version int64) error {
	want := statements(schemas[version-1])
	var found []string
	err := c.rows(func(r *columns) {
		if text := r.blob(); text != nil { // nil for an index that a table implies
			found = append(found, plain(string(text)))
		}
	}, "select sql from sqlite_schema")
	if err != nil {
		return err
	}
	for _, text := range found {
		if !want[text] {
			return fmt.Errorf("%w: unknown entry in its schema: %.100q", errDamaged, text)
		}
		delete(want, text)
	}
	delete(want, sequenceTable) // exists once a table needs it
	if len(want) > 0 {
		return fmt.Errorf("%w: missing entry in its schema: %.100q", errDamaged, slices.Sorted(maps.Keys(want))[0])
	}
	return nil
}

const sequenceTable = "create table sqlite_sequence(name,seq)"

// statements returns the statements of a schema in the form of plain.
func statements(schema string) map[string]bool {
	all := map[string]bool{sequenceTable: true}
	for text := range strings.SplitSeq(schema, ";") {
		if text = plain(text); text != "" {
			all[text] = true
		}
	}
	return all
}

// plain normalizes the spaces of a statement, and puts its first words in lower
// case: SQLite writes them in upper case.
func plain(text string) string {
	text = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "( ", "(")
	for _, words := range []string{"CREATE TABLE ", "CREATE VIEW ", "CREATE UNIQUE INDEX ", "CREATE INDEX "} {
		if rest, ok := strings.CutPrefix(text, words); ok {
			return strings.ToLower(words) + rest
		}
	}
	return text
}
