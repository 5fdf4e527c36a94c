/** The one panel on the left: workspace, data and jobs. */

import { ReactWidget } from '@jupyterlab/ui-components';
import { CommandRegistry } from '@lumino/commands';
import { Message } from '@lumino/messaging';
import React from 'react';

import { DataModel } from './data/model';
import { DataSection } from './data/view';
import { moonIcon } from './icons';
import { JobsModel } from './jobs/model';
import { JobsSection } from './jobs/view';
import { useSeen } from './parts';
import { WorkspaceModel } from './workspace/model';
import { WorkspaceSection } from './workspace/view';

export interface IModels {
  workspace: WorkspaceModel;
  data: DataModel;
  jobs: JobsModel;
}

function Sections(props: {
  models: IModels;
  commands: CommandRegistry;
}): JSX.Element {
  const { models, commands } = props;
  const { problem } = useSeen(models.workspace.workspace);
  return (
    <>
      <WorkspaceSection model={models.workspace} commands={commands} />
      <DataSection model={models.data} commands={commands} said={problem} />
      <JobsSection model={models.jobs} commands={commands} said={problem} />
    </>
  );
}

/** Looks at the platform only while it is shown. */
export class TorporPanel extends ReactWidget {
  constructor(
    private readonly models: IModels,
    private readonly commands: CommandRegistry
  ) {
    super();
    this.id = 'torpor-panel';
    this.addClass('tp-panel');
    this.title.icon = moonIcon;
    this.title.caption = 'Torpor: workspace, data, jobs';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Torpor');
  }

  protected render(): JSX.Element {
    return <Sections models={this.models} commands={this.commands} />;
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.watch();
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    if (this.isVisible) {
      this.watch();
    }
  }

  protected onBeforeHide(message: Message): void {
    this.unwatch();
    super.onBeforeHide(message);
  }

  protected onBeforeDetach(message: Message): void {
    this.unwatch();
    super.onBeforeDetach(message);
  }

  private watch(): void {
    if (this.watched.length === 0) {
      const { workspace, data, jobs } = this.models;
      this.watched = [workspace.workspace, data.tree, jobs.jobs].map(each =>
        each.watch()
      );
    }
  }

  private unwatch(): void {
    this.watched.splice(0).forEach(stop => stop());
  }

  private watched: (() => void)[] = [];
}
