package schedule

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/sql"
)

// installLock is the key of the advisory lock that makes two installations wait for each other: "mvsched" in ASCII.
const installLock = 0x6d767363686564

// Install installs schema mvsched, or finds that it is there already (false). It is one transaction; of two that run
// at once, one installs and the other finds it done. It returns a *SchemaVersionError when the schema is newer than
// this program. It needs CREATE on the database, or an empty schema mvsched that the role may create in.
func Install(ctx context.Context, db DB) (installed bool, err error) {
	store := NewStore(db)
	err = store.edit(ctx, "installing schema mvsched", func(ctx context.Context, tx pgx.Tx) error {
		// A transaction's advisory lock works behind a pooler too, and lock_timeout bounds the wait for it.
		if _, err := tx.Exec(ctx, `select pg_catalog.pg_advisory_xact_lock($1)`, int64(installLock)); err != nil {
			return err
		}
		var there bool
		err := tx.QueryRow(ctx, `select pg_catalog.to_regclass('mvsched.schema_version') is not null`).Scan(&there)
		if err != nil {
			return err
		}
		if there {
			return checkVersion(ctx, tx, sql.Version)
		}
		installed = true
		// Many statements in one message: only the simple protocol takes them, and there are no arguments in it.
		return tx.Conn().PgConn().Exec(ctx, sql.Schema).Close()
	})
	if err != nil {
		return false, err
	}
	return installed, nil
}

// Uninstall drops schema mvsched with everything in it, schedules and history, and whatever was built on it. The
// materialized views stay. It returns ErrNoSchema when there is nothing to drop.
//
// Workers take their locks in the order of their work, the server those of a drop in the order of its catalog: with
// workers about, it may be the one that a deadlock ends, and then tries again.
func (s *Store) Uninstall(ctx context.Context) (err error) {
	for range 5 {
		err = s.edit(ctx, "removing schema mvsched", func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `drop schema mvsched cascade`)
			return err
		})
		if sqlState(err) != pgerrcode.DeadlockDetected {
			break
		}
	}
	if isNoSchema(err) {
		return ErrNoSchema
	}
	return err
}

// Superuser says what a worker that is connected as superuser should know before it refreshes.
type Superuser struct {
	ForeignViews int    // scheduled and named views that belong to somebody else, and tables that do, or whose views do
	Vulnerable   string // the CVE of a REFRESH escalation that this minor version has; "" when none is known
}

// A table is written as us, with its triggers, and so are the functions called of the view that it is kept equal to.
//
// The names last: to put 2,000 together takes 35 ms, and few views have no schedule. Who is no superuser counts nothing.
const superuserSQL = `
select me.rolsuper, current_setting('server_version_num')::integer,
       case when me.rolsuper then (
         select count(*)
           from mvsched.materialization m
           left join pg_catalog.pg_class source on source.oid = m.source
          where (m.relowner <> me.oid or source.relowner <> me.oid)
            and (exists (select from mvsched.materialized_view_refresh_schedule s
                          where s.view_oid = m.oid and s.database_identity = (select mvsched.database_identity()))
                 or mvsched.view_name(m.oid) = any ($1::text[]))) else 0 end
  from pg_catalog.pg_roles me
 where me.rolname = current_user`

// CheckSuperuser returns nil when the role is no superuser. A superuser who refreshes a view runs its owner's query;
// servers without the fixes named in Vulnerable let that owner's code run as the superuser. Beside the views that have
// a schedule, these are looked at, which have to exist.
func (s *Store) CheckSuperuser(ctx context.Context, views []ViewName) (*Superuser, error) {
	ctx, cancel := withDeadline(ctx, "reading the role")
	defer cancel()
	var names []string
	if len(views) > 0 {
		var err error
		if names, err = s.Resolve(ctx, views); err != nil {
			return nil, err
		}
	}
	var su Superuser
	var is bool
	var version int
	err := s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(superuserSQL, names).QueryRow(func(row pgx.Row) error { return row.Scan(&is, &version, &su.ForeignViews) })
	})
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !is {
		return nil, nil //nolint:nilnil // documented: no superuser, nothing to say
	}
	if err != nil {
		return nil, fmt.Errorf("reading the role: %w", err)
	}
	su.Vulnerable = refreshEscalation(version)
	return &su, nil
}

// refreshEscalation names the newest known way in which REFRESH MATERIALIZED VIEW CONCURRENTLY runs the owner's code
// with the caller's rights on this server (PostgreSQL security page: CVE-2024-0985, CVE-2022-1552).
func refreshEscalation(serverVersion int) string {
	major, minor := serverVersion/10000, serverVersion%10000
	fixed := map[int][2]int{ // major → first minor with the fix of CVE-2022-1552, of CVE-2024-0985
		13: {7, 14}, 14: {3, 11}, 15: {0, 6}, 16: {0, 2},
	}
	first, known := fixed[major]
	switch {
	case !known:
		return ""
	case minor < first[0]:
		return "CVE-2022-1552"
	case minor < first[1]:
		return "CVE-2024-0985"
	}
	return ""
}
