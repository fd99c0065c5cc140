package schedule_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

// extremes are what a hand may write into any column; most columns refuse most of them.
var extremes = []string{
	"", "0", "-1", "1", "2147483647", "-9223372036854775808", "9223372036854775807", "1e300", "NaN", "infinity", "-infinity", "epoch",
	"9999-12-30 00:00+00", "294276-12-31", "4713-01-01 BC", "178000000 years", "-1 day", "1 microsecond", "1 month", "1 mon -30 days", "P1Y",
	"00:00", "24:00", "true", "false", "x", "public.good", "pg_catalog.pg_class", `"`, "\x1b[31m", strings.Repeat("x", 10_000),
	"* * * * *", "0 0 30 2 *", "@every 1s", "TZ= * * * * *", "Mars/Phobos", "{}", "[]", "{1,NULL}", "succeeded", "failed", "plain",
}

// L2, in general: whatever can be written into one column of one schedule, or of the settings, the other schedules are planned, claimed and
// settled as before, and who looks can look.
func TestWhateverAHandWritesStopsNoOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const columns = `select string_agg(attname, ' ' order by attnum) from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped`
	taken := 0
	b.fresh()
	for _, table := range []string{"mvsched.materialized_view_refresh_schedule", "mvsched.settings"} {
		for column := range strings.SplitSeq(b.Value(columns, table), " ") {
			for _, value := range append(extremes, "null") {
				update := "update " + table + " set " + column + " = "
				if value == "null" {
					update += value
				} else {
					update += "'" + strings.ReplaceAll(value, "'", "''") + "'"
				}
				if strings.HasSuffix(table, "schedule") {
					update += " where materialized_view_name = 'public.bad'"
				}
				if _, err := b.Pool.Exec(t.Context(), update); err != nil {
					continue
				}
				taken++
				if !b.goesOn(table == "mvsched.settings") {
					t.Errorf("stopped by: %.300s", update)
				}
				b.fresh()
			}
		}
	}
	if taken < 100 {
		t.Errorf("only %d of them were taken: is the test right?", taken)
	}
	t.Logf("%d taken", taken)
}

// fresh has two schedules as new, and nothing else.
func (b *bundle) fresh() {
	b.Helper()
	if b.Value(`to_regclass('public.bad') is null`) == "true" {
		b.Exec(`create materialized view public.bad as select 1 as id`)
		b.Exec(`create materialized view public.good as select 1 as id`)
		b.Exec(`create table public.settings as select * from mvsched.settings`)
	}
	b.Exec(`delete from mvsched.materialized_view_refresh_schedule_execution`)
	b.Exec(`delete from mvsched.materialized_view_refresh_schedule`)
	b.Exec(`delete from mvsched.settings`)
	b.Exec(`insert into mvsched.settings select * from public.settings`)
	b.Schedule("public.bad", "1 hour")
	b.Schedule("public.good", "1 hour")
}

// goesOn takes the good schedule through a slot. A cap on refreshes is allowed to hold it up.
func (b *bundle) goesOn(capped bool) bool {
	b.Helper()
	if _, err := b.store.Tend(b.Context(), schedule.TendOptions{Limit: 10}); err != nil {
		b.Logf("tend: %v", err)
		return false
	}
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() where materialized_view_name = 'public.good'`)
	claims, err := b.store.Claim(b.Context(), schedule.ClaimOptions{Limit: 10, Worker: "w"})
	if err != nil || !capped && !slices.Contains(views(claims), "public.good") {
		b.Logf("claimed %v, %v", views(claims), err)
		return false
	}
	for _, claim := range claims {
		b.succeed(claim)
	}
	if _, err := b.store.Tend(b.Context(), schedule.TendOptions{Limit: 10}); err != nil {
		b.Logf("tend: %v", err)
		return false
	}
	if _, err := b.store.Status(b.Context(), nil); err != nil {
		b.Logf("status: %v", err)
		return false
	}
	if _, err := b.store.List(b.Context()); err != nil {
		b.Logf("list: %v", err)
		return false
	}
	return true
}
