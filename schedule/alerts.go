package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// How long things last about alerts. A new schedule has its patience before somebody is told that its view was never
// refreshed. A lease is longer than any attempt at telling takes.
const (
	alertPatience = 5 * time.Minute
	alertRepeat   = 24 * time.Hour
	alertLease    = time.Minute
	alertGiveUp   = 3 * 24 * time.Hour
	alertForget   = "30 days"
)

// String is the health as a severity: ok, warning or critical.
func (h Health) String() string {
	switch h {
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	default:
		return "ok"
	}
}

// Verdict is a view's alert state: the state that monitoring goes by, with what it means.
type Verdict struct {
	State  State
	Health Health
}

// same: what is well is well, in whichever state.
func (v Verdict) same(other Verdict) bool {
	return v.Health == other.Health && (v.Health == Healthy || v.State == other.State)
}

// Verdict judges the view, after what was found before. A refresh that is under way, or a wait for a worker or for what
// the view reads, says nothing new on a view that was not well: only its end does. Neither does it that a person has resumed a suspended
// view, before its next run has shown what that was good for. And a view whose MaxLag cannot be kept is late, and not well
// and late again with every refresh.
func (s Standing) Verdict(before Verdict) Verdict {
	state, health := s.Judge(nil)
	now := Verdict{state, health}
	waits := s.State == StateRunning || s.State == StateDue || s.State == StateBlocked && !s.lockBusy()
	flaps := before.State == StateLate && state == StateUnreachable
	resumed := before.State == StateSuspended && state == StateFailing && s.ConsecutiveFailures == 0
	if before.Health != Healthy && (waits || flaps || resumed) {
		return before
	}
	return now
}

func (s Standing) lockBusy() bool {
	return s.Last != nil && s.Last.Reason != nil && *s.Last.Reason == ReasonLockBusy
}

// AlertTarget is somebody who is told of alerts.
type AlertTarget struct {
	ID   string // 64 hexadecimal digits, the same for every process that tells it
	Host string // for people
}

const addTargetSQL = `
insert into mvsched.alert_target (target, host, looked_at)
values ($1, $2, coalesce($3::timestamptz, now()) - interval '1 day') on conflict do nothing`

// AddAlertTarget makes a target known, and forgets those that no process has looked for in 30 days.
func (s *Store) AddAlertTarget(ctx context.Context, target AlertTarget) error {
	ctx, cancel := withDeadline(ctx, "preparing alerts")
	defer cancel()
	err := s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(`delete from mvsched.alert_target t
 where t.looked_at < coalesce($1::timestamptz, now()) - interval '`+alertForget+`'`, s.now())
		batch.Queue(addTargetSQL, target.ID, target.Host, s.now())
	})
	if err != nil {
		return fmt.Errorf("preparing alerts: %w", err)
	}
	return nil
}

// AlertLook says how to look for alerts.
type AlertLook struct {
	Target   AlertTarget
	Within   time.Duration                       // not when another process has looked within so long; 0: in any case
	Describe func(Standing, State) (line string) // what is wrong with a view
}

// turnSQL: one process at a time looks for a target. So what the next one reads is never older than what was written
// down. Another process' look is as good, so nobody waits for it.
const turnSQL = `
update mvsched.alert_target t
   set looked_at = coalesce($2::timestamptz, now())
 where t.target = (select x.target
                     from mvsched.alert_target x
                    where x.target = $1
                      and (x.looked_at <= coalesce($2::timestamptz, now()) - make_interval(secs => $3::float8)
                           or x.looked_at > coalesce($2::timestamptz, now())) -- the clock was set back
                      for no key update skip locked)`

// The rows are locked since telling, which goes on meanwhile, writes what was told into them.
const alertsSQL = `
select a.view_name, a.state, a.severity, a.told_state, a.told_severity,
       a.told_at <= coalesce($2::timestamptz, now()) - make_interval(secs => $3::float8), a.next_attempt_at is not null
  from mvsched.alert a
 where a.target = $1
 order by a.view_name
   for no key update`

// Where an attempt may be under way, the new alert waits until that is over, or the target could hear it first.
const alertSQL = `
insert into mvsched.alert as a (target, view_name, state, severity, since, previous_state, message, repeated,
                                pending_since, next_attempt_at)
select $1, n.view_name, n.state, n.severity, clock.now, n.previous, n.message, n.repeated, clock.now,
       clock.now + make_interval(secs => n.patience)
  from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::float8[])
       as n (view_name, state, severity, previous, message, repeated, patience)
 cross join (select coalesce($9::timestamptz, now()) as now) clock
    on conflict (target, view_name) do update
   set id = excluded.id, state = excluded.state, severity = excluded.severity, message = excluded.message,
       since = case when excluded.repeated then a.since else excluded.since end,
       previous_state = case when excluded.repeated then a.previous_state else excluded.previous_state end,
       repeated = excluded.repeated, attempts = 0,
       pending_since = excluded.pending_since,
       next_attempt_at = case when a.told_state is null
                              then greatest(excluded.next_attempt_at, least(a.next_attempt_at, excluded.pending_since + make_interval(secs => $10::float8)))
                              else excluded.next_attempt_at end`

// What the target has been told holds again, before it was told anything else.
const takeBackSQL = `
update mvsched.alert a
   set state = a.told_state, severity = a.told_severity, attempts = 0, pending_since = null, next_attempt_at = null
 where a.target = $1 and a.view_name = any ($2::text[])`

// A row of what is well, and needs not be told, says nothing.
const forgetSQL = `delete from mvsched.alert a where a.target = $1 and a.severity = 'ok' and a.next_attempt_at is null`

// AlertsFound is what a look has found.
type AlertsFound struct {
	Looked   bool            // it was not another process' turn
	Pending  bool            // there is something to tell, now or later
	Troubled map[string]bool // the views that are not well
}

// LookForAlerts compares how all views stand with what the target knows, and writes down what it is to be told.
func (s *Store) LookForAlerts(ctx context.Context, look AlertLook) (found AlertsFound, err error) {
	ctx, cancel := withDeadline(ctx, "looking for alerts")
	defer cancel()
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		turn, err := tx.Exec(ctx, turnSQL, look.Target.ID, s.now(), look.Within.Seconds())
		if err != nil {
			return err
		}
		if turn.RowsAffected() == 0 { // it is another's, or there is none any more: the schema may be a new one
			_, err := tx.Exec(ctx, addTargetSQL, look.Target.ID, look.Target.Host, s.now())
			return err
		}
		standings, err := collectRows(ctx, tx, scanStanding, statusSQL, nil)
		if err != nil {
			return err
		}
		known, err := collectRows(ctx, tx, scanKnownAlert, alertsSQL, look.Target.ID, s.now(), alertRepeat.Seconds())
		if err != nil {
			return err
		}
		news := compareAlerts(standings, known, look.Describe)
		found = AlertsFound{Looked: true, Pending: len(news.views) > 0, Troubled: news.troubled}
		for _, k := range known {
			found.Pending = found.Pending || k.pending
		}
		return s.writeAlerts(ctx, tx, look.Target, news)
	})
	if err != nil {
		return AlertsFound{}, fmt.Errorf("looking for alerts: %w", err)
	}
	return found, nil
}

func collectRows[T any](ctx context.Context, db querier, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

func (s *Store) writeAlerts(ctx context.Context, tx pgx.Tx, target AlertTarget, news alertNews) error {
	if len(news.views) > 0 {
		_, err := tx.Exec(ctx, alertSQL, target.ID, news.views, news.states, news.severities, news.previous, news.messages,
			news.repeated, news.patience, s.now(), alertLease.Seconds())
		if err != nil {
			return err
		}
	}
	if len(news.takenBack) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, takeBackSQL, target.ID, news.takenBack); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, forgetSQL, target.ID)
	return err
}

// knownAlert is what is written down about a view.
type knownAlert struct {
	view    string
	now     Verdict
	told    *Verdict // nil: not known
	old     bool     // it was told a day ago
	pending bool
}

func scanKnownAlert(row pgx.CollectableRow) (k knownAlert, err error) {
	var severity string
	var toldState *State
	var toldSeverity *string
	var old *bool
	if err = row.Scan(&k.view, &k.now.State, &severity, &toldState, &toldSeverity, &old, &k.pending); err != nil {
		return k, err
	}
	k.now.Health = healthOf(severity)
	if toldState != nil && toldSeverity != nil {
		k.told = &Verdict{*toldState, healthOf(*toldSeverity)}
	}
	k.old = old != nil && *old
	return k, nil
}

func healthOf(severity string) Health {
	for _, h := range []Health{Warning, Critical} {
		if h.String() == severity {
			return h
		}
	}
	return Healthy
}

// alertNews is what a look has found, as alertSQL takes it.
type alertNews struct {
	views, states, severities, previous, messages []string
	repeated                                      []bool
	patience                                      []float64
	takenBack                                     []string
	troubled                                      map[string]bool
}

// compareAlerts finds what a target is to be told: what has another alert state than before, and what has been as bad for
// a day. A view of which nothing is known is well.
func compareAlerts(standings []Standing, known []knownAlert, describe func(Standing, State) string) alertNews {
	news := alertNews{troubled: map[string]bool{}}
	before := map[string]knownAlert{}
	for _, k := range known {
		before[k.view] = k
	}
	well := Verdict{StateFresh, Healthy}
	compare := func(view string, k knownAlert, now Verdict, message string) {
		if now.Health != Healthy {
			news.troubled[view] = true
		}
		repeat := false
		switch {
		case !now.same(k.now) && k.told != nil && now.same(*k.told):
			news.takenBack = append(news.takenBack, view)
			return
		case !now.same(k.now):
		case k.pending || now.Health == Healthy || !k.old:
			return
		default:
			repeat = true
		}
		previous := k.now.State
		if k.told != nil {
			previous = k.told.State // the target has not heard of what was in between
		}
		patience := 0.0
		if now.State == StateNever {
			patience = alertPatience.Seconds()
		}
		news.views = append(news.views, view)
		news.states = append(news.states, string(now.State))
		news.severities = append(news.severities, now.Health.String())
		news.previous = append(news.previous, string(previous))
		news.messages = append(news.messages, message)
		news.repeated = append(news.repeated, repeat)
		news.patience = append(news.patience, patience)
	}
	for _, s := range worstOfEach(standings) {
		k, there := before[s.View]
		if !there {
			k = knownAlert{view: s.View, now: well, told: &well}
		}
		delete(before, s.View)
		now := s.Verdict(k.now)
		message := string(now.State)
		if now.Health != Healthy {
			message = describe(s, now.State)
		}
		compare(s.View, k, now, message)
	}
	for view, k := range before {
		compare(view, k, Verdict{StateUnscheduled, Healthy}, string(StateUnscheduled)+": its schedule was removed")
	}
	return news
}

// worstOfEach leaves one standing of each view. Two schedules may mean the same one, when it has been renamed.
func worstOfEach(standings []Standing) (worst []Standing) {
	places := map[string]int{}
	for _, s := range standings {
		at, there := places[s.View]
		if !there {
			places[s.View] = len(worst)
			worst = append(worst, s)
			continue
		}
		_, one := worst[at].Judge(nil)
		if _, other := s.Judge(nil); other > one {
			worst[at] = s
		}
	}
	return worst
}

// Alert is one thing to tell a target.
type Alert struct {
	ID            string // a UUID
	Database      string
	View          string
	State         State
	Severity      string // ok, warning, critical
	PreviousState State
	Since         time.Time // when the state was first seen
	Message       string
	Repeated      bool
	Attempt       int
}

// claimAlertSQL: whoever has the row tries, and nobody else before the lease is over.
const claimAlertSQL = `
with due as materialized (
  select a.target, a.view_name
    from mvsched.alert a
   where a.target = $1 and a.next_attempt_at <= coalesce($2::timestamptz, now())
   order by a.next_attempt_at
   limit 1
     for no key update skip locked
)
update mvsched.alert a
   set attempts = least(a.attempts + 1, 1000000), told_state = null, told_severity = null,
       next_attempt_at = coalesce($2::timestamptz, now()) + make_interval(secs => $3::float8)
  from due
 where a.target = due.target and a.view_name = due.view_name
returning a.id::text, pg_catalog.current_database()::text, a.view_name, a.state, a.severity, a.previous_state, a.since, a.message, a.repeated, a.attempts`

func scanAlert(row pgx.CollectableRow) (a Alert, err error) {
	err = row.Scan(&a.ID, &a.Database, &a.View, &a.State, &a.Severity, &a.PreviousState, &a.Since, &a.Message, &a.Repeated, &a.Attempt)
	return a, err
}

// ErrNoAlert is that nothing is to be told now.
var ErrNoAlert = errors.New("there is no alert to tell")

// ClaimAlert takes what has been due for longest to be told to a target; ErrNoAlert: nothing is. Of several processes one
// gets it, for a minute; if it has not reported by then, it is another's, with the same id.
func (s *Store) ClaimAlert(ctx context.Context, target AlertTarget) (Alert, error) {
	ctx, cancel := withDeadline(ctx, "claiming an alert")
	defer cancel()
	claimed, err := read(ctx, s, "claiming an alert", scanAlert, claimAlertSQL, target.ID, s.now(), alertLease.Seconds())
	if err == nil && len(claimed) == 0 {
		err = ErrNoAlert
	}
	if err != nil {
		return Alert{}, err
	}
	return claimed[0], nil
}

const returnAlertSQL = `
update mvsched.alert a
   set next_attempt_at = coalesce($5::timestamptz, now())
 where a.target = $1 and a.view_name = $2 and a.id = $3::text::uuid and a.attempts = $4`

// ReturnAlert gives back what was claimed and not sent, so that another process need not wait for the end of the lease. If
// that is over already, and the alert another's, it does nothing.
func (s *Store) ReturnAlert(ctx context.Context, target AlertTarget, alert Alert) error {
	ctx, cancel := withDeadline(ctx, "returning an alert")
	defer cancel()
	err := s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(returnAlertSQL, target.ID, alert.View, alert.ID, alert.Attempt, s.now())
	})
	if err != nil {
		return fmt.Errorf("returning an alert: %w", err)
	}
	return nil
}

// The state may have changed while it was told; then there is a new alert in the row, and that stays due.
const alertToldSQL = `
update mvsched.alert a
   set told_state = $3, told_severity = $4, told_at = coalesce($6::timestamptz, now()), last_error = null,
       pending_since = case when a.id <> $5::text::uuid then a.pending_since end,
       next_attempt_at = case when a.id <> $5::text::uuid then least(a.next_attempt_at, coalesce($6::timestamptz, now())) end,
       attempts = case when a.id <> $5::text::uuid then a.attempts else 0 end
 where a.target = $1 and a.view_name = $2`

// AlertTold records that the target has taken an alert.
func (s *Store) AlertTold(ctx context.Context, target AlertTarget, alert Alert) error {
	ctx, cancel := withDeadline(ctx, "recording an alert")
	defer cancel()
	err := s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(alertToldSQL, target.ID, alert.View, alert.State, alert.Severity, alert.ID, s.now())
		batch.Queue(forgetSQL, target.ID)
	})
	if err != nil {
		return fmt.Errorf("recording an alert: %w", err)
	}
	return nil
}

// What is given up counts as told: a change of state, or another day, is the next reason to try. Where nothing is to be
// told any more, another process has told it meanwhile.
const alertFailedSQL = `
with clock as (select coalesce($4::timestamptz, now()) as now)
update mvsched.alert a
   set last_error = $5,
       told_state = case when over.is then a.state end,
       told_severity = case when over.is then a.severity end,
       told_at = case when over.is then clock.now else a.told_at end,
       next_attempt_at = case when not over.is then clock.now + make_interval(secs => $6::float8) end,
       pending_since = case when not over.is then a.pending_since end
  from clock
 cross join lateral (
        select x.pending_since < clock.now - make_interval(secs => $7::float8) as is
          from mvsched.alert x where x.target = $1 and x.view_name = $2) over
 where a.target = $1 and a.view_name = $2 and a.id = $3::text::uuid and a.pending_since is not null
returning over.is`

// AlertFailed records that an attempt at telling has failed; the next one may be made after so long. After three days of
// attempts it is given up.
func (s *Store) AlertFailed(ctx context.Context, target AlertTarget, alert Alert, problem string, next time.Duration) (givenUp bool, err error) {
	ctx, cancel := withDeadline(ctx, "recording an alert")
	defer cancel()
	var over []bool
	err = s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(alertFailedSQL, target.ID, alert.View, alert.ID, s.now(), cut(problem), next.Seconds(), alertGiveUp.Seconds()).
			Query(collect(&over, pgx.RowTo[bool]))
		batch.Queue(forgetSQL, target.ID)
	})
	if err != nil {
		return false, fmt.Errorf("recording an alert: %w", err)
	}
	return len(over) > 0 && over[0], nil
}
