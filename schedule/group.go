package schedule

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const groupOfSQL = `
select s.refresh_group,
       array(select found.name
               from mvsched.materialized_view_refresh_schedule x
              cross join lateral mvsched.view_name(
                     mvsched.resolve_view(x.view_oid, x.database_identity, x.materialized_view_name, mvsched.database_identity())) found (name)
              where x.refresh_group = s.refresh_group and x.paused_at is null and x.suspended_at is null and found.name is not null)
  from mvsched.materialized_view_refresh_schedule s
 where s.id = $1 and s.refresh_group is not null and s.paused_at is null and s.suspended_at is null`

// Group is the group that a view is refreshed with, and the canonical names of its members that are neither paused nor
// suspended; "" for a view that is refreshed by itself.
func (s *Store) Group(ctx context.Context, view ViewName) (group string, members []string, err error) {
	ctx, cancel := withDeadline(ctx, "looking up a group")
	defer cancel()
	found, err := s.describe(ctx, view)
	if err != nil || found.scheduleID == nil {
		return "", nil, err
	}
	err = s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(groupOfSQL, *found.scheduleID).Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, []any{&group, &members}, func() error { return nil })
			return err
		})
	})
	if err != nil {
		return "", nil, fmt.Errorf("looking up the group of %s: %w", view, err)
	}
	return group, members, nil
}

const claimGroupSQL = `
select ` + claimColumns + `
  from mvsched.claim_group($1, $2, null, null, clock_timestamp(), $3, true) c`

// ClaimGroup claims a group out of turn, without moving its schedules: all of its members, or none when one of them is being
// refreshed already. Settings are as for ClaimView.
func (s *Store) ClaimGroup(ctx context.Context, group string, settings Settings, opts ClaimOptions) ([]Claim, error) {
	ctx, cancel := withDeadline(ctx, "claiming")
	defer cancel()
	var claims []Claim
	err := s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(settleSQL)
		batch.Queue(claimGroupSQL, group, opts.Worker, opts.Usual).Query(collect(&claims, scanClaim))
	})
	if err != nil {
		return nil, fmt.Errorf("claiming group %q: %w", group, err)
	}
	for i := range claims {
		settings.override(&claims[i])
	}
	return claims, nil
}

// override puts what is given in the place of what the schedule says.
func (s Settings) override(claim *Claim) {
	if s.Timeout != nil {
		claim.Timeout = *s.Timeout
	}
	if s.LockTimeout != nil {
		claim.LockTimeout = s.LockTimeout
	}
	if s.Strategy != nil {
		claim.Strategy = *s.Strategy
	}
	if s.SearchPath != nil {
		claim.SearchPath = s.SearchPath
	}
}
