package schedule

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

const combinationSQL = `
select s.kind = 'view', s.on_change, s.skip_unchanged, s.refresh_group is not null,
       s.cron is not null or s.window_start is not null, s.merge_window is not null
  from mvsched.materialized_view_refresh_schedule s
 where s.id = any ($1::bigint[])`

// combination is what a schedule has, as far as other settings need it or do not go with it.
type combination struct {
	view, onChange, skipUnchanged, group, localTime, mergeWindow bool
}

// together refuses settings that do not go with what their schedules, which have them already, are now: whoever looks at
// these would not see them. What was there before and no longer applies stays, for the day when it does again.
func (s Settings) together(ctx context.Context, tx pgx.Tx, ids []int64) error {
	rows, err := tx.Query(ctx, combinationSQL, ids)
	if err != nil {
		return err
	}
	var c combination
	_, err = pgx.ForEachRow(rows, []any{&c.view, &c.onChange, &c.skipUnchanged, &c.group, &c.localTime, &c.mergeWindow}, func() error {
		return s.goesWith(c)
	})
	return err
}

func (s Settings) goesWith(c combination) error {
	if c.skipUnchanged && c.group && (s.SkipUnchanged != nil && *s.SkipUnchanged || s.Group != nil && *s.Group != "") {
		return &DefinitionError{
			Problem: "--skip-unchanged has no effect in a --group",
			Hint: "leave one of the two out, or take it away (--skip-unchanged=false, --group ''): " +
				"a view that is left alone would show another instant than the rest of its group",
		}
	}
	for _, rule := range []struct {
		given, fits bool
		flag, needs string
	}{
		{s.MaxStaleness != nil, c.skipUnchanged || c.onChange, "--max-staleness", "--skip-unchanged or --on-change"},
		{s.Timezone != nil, c.localTime, "--timezone", "--cron or --between"},
		{s.FullEvery != nil && *s.FullEvery > 0, c.mergeWindow, "--full-every", "--window"},
	} {
		if rule.given && !rule.fits {
			return &DefinitionError{Problem: rule.flag + " is for " + rule.needs, Hint: "leave it out, or use " + rule.needs}
		}
	}
	if s.Strategy != nil && !c.view {
		return strategyOfTables()
	}
	return nil
}

func strategyOfTables() error {
	return &DefinitionError{Problem: "--strategy is for materialized views", Hint: "leave it out: tables are never locked against readers"}
}

const kindsSQL = `select distinct m.kind from mvsched.materialization m where m.oid = any ($1::bigint[]::oid[])`

// CheckRefresh refuses what a refresh of these views is asked for and none of them has a use for.
func (s *Store) CheckRefresh(ctx context.Context, views []ViewName, settings Settings, whole bool) error {
	if settings.Strategy == nil && !whole {
		return nil
	}
	ctx, cancel := withDeadline(ctx, "looking up a view")
	defer cancel()
	all, err := s.describeAll(ctx, views)
	if err != nil {
		return err
	}
	var oids []int64
	for _, found := range all {
		oids = append(oids, *found.oid)
	}
	kinds, err := read(ctx, s, "looking up a view", pgx.RowTo[Materialization], kindsSQL, oids)
	switch {
	case err != nil:
		return err
	case settings.Strategy != nil && !slices.Contains(kinds, MaterializedView):
		return strategyOfTables()
	case whole && !slices.Contains(kinds, MergeTable):
		return &DefinitionError{Problem: "--full is for merge tables", Hint: "leave it out: what has no window is always refreshed in full"}
	}
	return nil
}
