// Package sql holds the schema that mvsched installs into a database.
//
// schema.sql is the one source: `mvsched init` executes it, `mvsched init --print` prints it, and the tests install
// it. An upgrade will be a numbered file beside it.
package sql

import _ "embed"

// Version is the version of the schema that Schema installs, the number in mvsched.schema_version.
const Version = 1

// Schema is the text of schema.sql: many statements, to be executed in one transaction.
//
//go:embed schema.sql
var Schema string
