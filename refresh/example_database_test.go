package refresh_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// exampleDatabase makes a database for the example, which has no testing.TB to ask for one.
func exampleDatabase() (dsn string, drop func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dsn = os.Getenv(pgtest.EnvDatabaseURL)
	if server := pgtest.Server(); server != nil {
		dsn = server.DSN("postgres")
	}
	admin, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = admin.Close(ctx) }()
	const database = "mvsched_example"
	for _, sql := range []string{"drop database if exists " + database + " with (force)", "create database " + database} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			return "", nil, err
		}
	}
	config := admin.Config().Copy()
	config.Database = database
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return "", nil, err
	}
	_, err = conn.Exec(ctx, `
		create materialized view public.sales_by_day as select current_date as id, 42 as sold;
		create unique index on public.sales_by_day (id)`)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return "", nil, err
	}
	drop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if admin, err := pgx.Connect(ctx, dsn); err == nil {
			_, _ = admin.Exec(ctx, "drop database if exists "+database+" with (force)")
			_ = admin.Close(ctx)
		}
	}
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		u.Path = "/" + database
		return u.String(), drop, nil
	}
	return dsn + " dbname=" + database, drop, nil
}
