package schedule_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// planNode is a node of what explain (analyze, format json) says.
type planNode struct {
	Rows    float64    `json:"Actual Rows"`
	Loops   float64    `json:"Actual Loops"`
	Removed float64    `json:"Rows Removed by Filter"`
	Apart   float64    `json:"Rows Removed by Join Filter"`
	Plans   []planNode `json:"Plans"`
}

// rows is how many the node and those below it have looked at.
func (n planNode) rows() float64 {
	sum := (n.Rows + n.Removed + n.Apart) * n.Loops
	for _, below := range n.Plans {
		sum += below.rows()
	}
	return sum
}

// Four times as many views are about four times as much to look at, whether or not an ANALYZE has seen them.
func TestDoctorOnManyViews(t *testing.T) {
	t.Parallel()
	for _, analyzed := range []bool{false, true} {
		t.Run(fmt.Sprintf("analyzed=%t", analyzed), func(t *testing.T) {
			t.Parallel()
			db := pgtest.NewDB(t)
			few := doctorLooksAt(db, 1, 100, analyzed)
			many := doctorLooksAt(db, 101, 400, analyzed)
			if many > 8*few {
				t.Errorf("%.0f rows for 100 views, %.0f for 400", few, many)
			}
		})
	}
}

// doctorLooksAt makes more views, each with a history, and returns how many rows it takes to examine all there are.
func doctorLooksAt(db *pgtest.DB, from, until int, analyzed bool) float64 {
	db.Helper()
	db.Exec(fmt.Sprintf(`do $$ begin
		for i in %d..%d loop
			execute format('create materialized view public.v%%s as select nullif(i, 2) as id from %%s i', i,
				case when i %% 10 < 3 then 'generate_series(1, 3)' else '(select id as i from public.v' || i - 1 || ')' end);
			execute format('create unique index on public.v%%s (id)', i);
		end loop;
	end $$`, from, until))
	db.Exec(`with made as (
		insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, refresh_group)
		select 'public.v' || i, '1 day', case when i % 2 = 1 then 'all' end from generate_series($1::integer, $2::integer) i
		returning *)
		insert into mvsched.materialized_view_refresh_schedule_execution
		(materialized_view_refresh_schedule_id, view_name, view_oid, status, started_at, ended_at, method, rows_inserted, rows_deleted, data_as_of)
		select id, materialized_view_name, view_oid, 'succeeded', now(), now(), 'concurrently', 1, 1, now() from made, generate_series(1, 20)`, from, until)
	if analyzed {
		db.Exec(`vacuum analyze`)
	}
	var plans []struct{ Plan planNode }
	var said []byte
	var batch pgx.Batch // as the doctor sends it
	for _, setting := range schedule.EdgesSettings {
		batch.Queue(setting)
	}
	batch.Queue(`explain (analyze, timing off, format json) ` + schedule.ChecksSQL()).QueryRow(func(row pgx.Row) error { return row.Scan(&said) })
	if err := db.Pool.SendBatch(db.Context(), &batch).Close(); err != nil {
		db.Fatal(err)
	}
	if err := json.Unmarshal(said, &plans); err != nil {
		db.Fatal(err)
	}
	return plans[0].Plan.rows()
}

// A call that its deadline has ended says so, and not what the server takes it for: that the user wished it.
func TestDoctorTakesTooLong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := b.Hold(`lock table mvsched.materialized_view_refresh_schedule`)
	defer release()
	config := b.Pool.Config().ConnConfig
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler { // much as the command line's does
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Minute}
	}
	cancels, err := pgx.ConnectConfig(b.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer cancels.Close(b.Context())
	for _, test := range []struct {
		db    schedule.DB
		state string
	}{{cancels, pgerrcode.QueryCanceled}, {b.Pool, ""}} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, schedule.ErrSlow)
		defer cancel()
		_, err := b.store.On(test.db).Doctor(ctx)
		if want := "examining the schedules: it took longer than 10s"; err == nil || err.Error() != want || sqlState(err) != test.state {
			t.Errorf("%v (%s), want %q (%s)", err, sqlState(err), want, test.state)
		}
	}
}
