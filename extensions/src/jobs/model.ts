/** The jobs of this workspace, or of its tenant. */

import { Api } from '../api';
import { Polled } from '../polled';
import { IList, IWorkspaceConfig, Job } from '../resources';

const ENDED = new Set(['SUCCEEDED', 'FAILED', 'CANCELLED']);
const SHOWN = 50;
const PAUSE_MS = 10000;
const PAUSE_WHILE_ONE_IS_UNDER_WAY_MS = 3000;

export type Scope = 'workspace' | 'tenant';

export function hasEnded(job: Job): boolean {
  return ENDED.has(job.status.phase);
}

export function canBeCancelled(job: Job): boolean {
  return !hasEnded(job) && job.status.phase !== 'CANCELLING';
}

export class JobsModel {
  constructor(
    readonly api: Api,
    private readonly config: IWorkspaceConfig
  ) {
    this.jobs = new Polled<IList<Job>>(
      'torpor:jobs',
      () => api.get<IList<Job>>('jobs', { ...this.asked, limit: SHOWN }),
      list =>
        list.items.every(hasEnded) ? PAUSE_MS : PAUSE_WHILE_ONE_IS_UNDER_WAY_MS
    );
  }

  readonly jobs: Polled<IList<Job>>;

  get scope(): Scope {
    return this.chosen;
  }

  set scope(scope: Scope) {
    this.chosen = scope;
    void this.jobs.refresh();
  }

  get tenant(): string {
    return this.config.tenant;
  }

  async cancel(id: string): Promise<void> {
    await this.api.wish<Job>(`jobs/${id}`, { desired: 'cancelled' });
    await this.jobs.refresh();
  }

  private get asked(): Record<string, string> {
    return this.chosen === 'workspace'
      ? { workspace: this.config.workspace }
      : { tenant: this.config.tenant };
  }

  private chosen: Scope = 'workspace';
}
