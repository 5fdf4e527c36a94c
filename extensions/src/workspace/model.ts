/** The workspace that this JupyterLab is. */

import { Api } from '../api';
import { Polled } from '../polled';
import { IWorkspaceConfig, Workspace } from '../resources';

const PAUSE_MS = 10000;
const PAUSE_WHILE_IT_CHANGES_MS = 2000;

export class WorkspaceModel {
  constructor(
    private readonly api: Api,
    readonly config: IWorkspaceConfig
  ) {
    this.workspace = new Polled<Workspace>(
      'torpor:workspace',
      () => api.get<Workspace>(this.path),
      ({ status }) =>
        status.progress === null ? PAUSE_MS : PAUSE_WHILE_IT_CHANGES_MS
    );
  }

  readonly workspace: Polled<Workspace>;

  /** The path of its page on the platform. */
  get page(): string {
    return this.workspace.seen.value?.status.page || this.config.page;
  }

  may(action: string): boolean {
    return this.workspace.seen.value?.status.actions.includes(action) ?? false;
  }

  /** Whether a stop is all that there is: nothing can be saved, so that it discards what was installed. */
  get onlyStops(): boolean {
    return this.may('stop_discard') && !this.may('sleep');
  }

  /** The platform's question before an action. */
  question(action: string): string {
    return this.workspace.seen.value?.status.confirmations?.[action] ?? '';
  }

  async wish(desired: 'asleep' | 'running'): Promise<void> {
    this.workspace.take(await this.api.wish<Workspace>(this.path, { desired }));
  }

  async stop(): Promise<void> {
    const spec = { desired: 'stopped', discard: true };
    this.workspace.take(await this.api.wish<Workspace>(this.path, spec));
  }

  private get path(): string {
    return `workspaces/${this.config.workspace}`;
  }
}
