package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgxpool"
)

// open makes the episode's database.
func (e *episode) open(ctx context.Context) error {
	e.database = fmt.Sprintf("chaos_%d", e.index)
	e.awaitTemplate(ctx)
	if err := execute(ctx, e.server, "postgres", fmt.Sprintf(`drop database if exists %s with (force)`, e.database),
		fmt.Sprintf(`create database %s template %s`, e.database, template)+e.tablespace()); err != nil {
		return err
	}
	schedules := []string{
		`alter database ` + e.database + ` set synchronous_commit = on`,
		`alter database ` + e.database + ` owner to worker`,
	}
	if e.theme != nil {
		schedules = append(schedules, e.theme.prepare...)
		for _, v := range e.theme.views {
			schedules = append(schedules, v.create()...)
		}
	}
	for _, v := range e.views {
		schedules = append(schedules, v.schedule(), v.note())
	}
	if err := execute(ctx, e.server, e.database, schedules...); err != nil {
		return err
	}
	config, err := pgxpool.ParseConfig(e.server.DSN(e.database))
	if err != nil {
		return err
	}
	config.MaxConns = 6
	config.ConnConfig.RuntimeParams["application_name"] = "oracle"
	config.ConnConfig.RuntimeParams["jit"] = "off" // where statistics lie, compiling a question takes longer than its answer may
	e.admin, err = pgxpool.NewWithConfig(ctx, config)
	return err
}

// tablespace is where the episode's database is.
func (e *episode) tablespace() string {
	if e.disk == nil {
		return ""
	}
	return " tablespace " + smallSpace
}

func (e *episode) awaitTemplate(ctx context.Context) {
	e.ctx, e.database = ctx, template
	e.awaitWrites(ctx)
	e.database = fmt.Sprintf("chaos_%d", e.index)
}

// hire sets up the workers: five servers, and somebody's cron.
func (e *episode) hire() error {
	socket := filepath.Join(e.server.Dir(), "s", ".s.PGSQL.5432")
	if e.pooler != nil {
		socket = e.pooler.socket()
	}
	serve := []string{"serve", "-j", "3", "--grace", "2s"}
	staff := [][]string{serve, serve, serve, serve, serve, {"run", "-j", "3"}}
	switch {
	case len(e.hosts) > 0:
		staff = staff[:len(e.hosts)]
	case e.theme.staff != nil:
		staff = e.theme.staff
	}
	for i, args := range staff {
		w := &worker{episode: e, name: fmt.Sprintf("chaos-%d", i), args: args}
		var err error
		if w.proxy, err = newProxy(w, socket, e.armory); err != nil {
			return err
		}
		if len(e.hosts) > 0 {
			w.host = e.hosts[i]
		}
		if e.theme.needs == clocks {
			if w.clock, err = newClock(e.file(w.name + ".clock")); err != nil {
				return err
			}
		}
		e.workers = append(e.workers, w)
	}
	return nil
}
